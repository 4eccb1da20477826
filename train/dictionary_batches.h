// Batches of the dictionary task (texts/dictionary.h) in the paper's form: contexts of definitions,
// and for each a sequence of questions that its definitions answer.
#pragma once

#include <cstdint>

#include "train/batch_source.h"

namespace fovea::train {

struct DictionaryOptions {
  int64_t n_entries = 128;
  int64_t n_records = 25;  // definitions of a context, questions of a sequence
  // The first steps have short contexts, as many more of them: among all definitions of a long one
  // a model from random values does not begin to look anything up.
  int64_t n_short_steps = 300;
  int64_t n_short_records = 6;
  // Share of the keys that are of families whose keys differ in one symbol, of 2 to
  // 1 + most_look_alikes keys each, anywhere in the batch.
  double look_alike_share = 0.5;
  int64_t most_look_alikes = 15;
  uint64_t seed = 0;
};

class DictionaryBatches : public BatchSource {
 public:
  // InvalidArgument where the options make no batch.
  static absl::StatusOr<std::unique_ptr<DictionaryBatches>> Create(
      const DictionaryOptions& options);
  // Targets are the symbols of the answers.
  absl::StatusOr<TrainingBatch> Make(uint64_t step, int64_t d) const override;
  int64_t most_contexts() const override { return options_.n_entries; }
  uint64_t seed() const override { return options_.seed; }

 private:
  explicit DictionaryBatches(const DictionaryOptions& options) : options_(options) {}
  const DictionaryOptions options_;
};

}  // namespace fovea::train
