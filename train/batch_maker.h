// Batches of a training run: contexts that go to the memory, and sequences that need them.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "train/crossbatch.h"
#include "train/losses.h"
#include "train/similar_passages.h"
#include "train/torch.h"
#include "train/training_texts.h"

namespace fovea::train {

struct BatchOptions {
  int64_t n_entries = 32;
  int64_t context_tokens = 1024;
  int64_t query_tokens = 512;
  // Of the entries: continuations of a book, and questions on passages; the rest asks for facts.
  // What there are no texts for goes to facts.
  double book_share = 0.15;
  double question_share = 0.55;
  // Of the entries with questions or facts: prompts have passages as well, the memory being on:
  // what answers them stands in the prompt, in the memory, or in both.
  double reread_share = 0.35;
  // Passages of such a prompt, at most: others that look like answering are read beside.
  int64_t most_passages = 3;
  // Of the facts: how many have others beside them that look like them.
  double lookalike_share = 0.5;
  // Not empty: LongLLaMA's form instead, books alone; equally large parts of a batch.
  std::vector<LongLlamaPacking> packings;
  // Weight of an entry whose every token counts beside those whose answers count.
  double book_weight = 0.25;
  uint64_t seed = 0;
};

struct TrainingBatch {
  // int64 [n_entries, context_tokens]; undefined: a step without a memory, or, where something is
  // seen, one whose contexts are the queries themselves
  torch::Tensor contexts;
  torch::Tensor queries;  // int64 [n_entries, query_tokens]
  torch::Tensor targets;  // int64 [n_entries, query_tokens]: the next id, or −100
  torch::Tensor weights;  // float32 [n_entries]
  SeenContexts seen;      // the entry's own context first; empty: nothing is seen
  std::vector<Ask> asks;  // in the own context
  std::vector<Ask> own;   // the last thing that an entry asks, or its last token: its whole context
};

// Thread-safe: a batch depends on the seed, the step and d alone.
class BatchMaker {
 public:
  // `texts` and `writer` outlive it. InvalidArgument where the options or texts give no batch.
  static absl::StatusOr<std::unique_ptr<BatchMaker>> Create(const TrainingTexts* texts,
                                                            const ExchangeWriter* writer,
                                                            const BatchOptions& options);
  // `d`: contexts that each entry sees; 0: a step without a memory.
  // With packings, any other d is as good.
  absl::StatusOr<TrainingBatch> Make(uint64_t step, int64_t d) const;
  const BatchOptions& options() const { return options_; }

 private:
  struct Entry;
  BatchMaker(const TrainingTexts* texts, const ExchangeWriter* writer, const BatchOptions& options)
      : texts_(*texts),
        writer_(*writer),
        options_(options),
        facts_(texts->words),
        similar_(FindSimilarPassages(texts->passages, kSimilar)) {}
  static constexpr size_t kSimilar = 8;
  // Of any file as likely.
  size_t PickPassage(Random& random) const;
  // `own` (may be empty) among others that look like passage p, in any order.
  std::vector<std::string> PassagesOfPrompt(const std::string& own, size_t p, Random& random) const;
  absl::StatusOr<TrainingBatch> MakePacked(Random& random) const;
  Tokens BookPiece(int64_t n_tokens, Random& random) const;
  void AddExchange(const Exchange& exchange, int64_t memory_begin, int64_t memory_end,
                   Entry* entry) const;
  void MakeBookEntry(Random& random, Entry* entry) const;
  absl::Status MakeQuestionEntry(Random& random, Entry* entry) const;
  absl::Status MakeFactEntry(Random& random, Entry* entry) const;
  absl::Status MakeLocalEntry(Random& random, Entry* entry) const;

  const TrainingTexts& texts_;
  const ExchangeWriter& writer_;
  const BatchOptions options_;
  const FactMaker facts_;
  const std::vector<std::vector<size_t>> similar_;  // by passage
};

}  // namespace fovea::train
