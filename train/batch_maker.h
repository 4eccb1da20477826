// Batches of a training run: contexts that go to the memory, and sequences that need them.
#pragma once

#include <cstdint>
#include <limits>

#include "base/status.h"
#include "train/batch_source.h"
#include "train/hard_negatives.h"
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
  // Of the passages that questions are asked about: those that stand in the memory among their
  // neighbours, and in prompts beside some of them. Of the others: beside what words find.
  double neighbour_share = 0.5;
  // The longest passages of prompts: shorter ones get what stands beside them, at random, since a
  // passage that is read again holds more than what answers.
  int64_t passage_bytes = 1500;
  // Of the questions in steps without a memory: the model is to ask them, given their passage.
  double ask_share = 0.25;
  // Of the facts: how many have others beside them that look like them.
  double lookalike_share = 0.5;
  // Not empty: LongLLaMA's form instead, books alone; equally large parts of a batch.
  std::vector<LongLlamaPacking> packings;
  // Of a book's tokens: ask for their own context as a whole, so that keys tell contexts apart for
  // plain text as well.
  int64_t book_asks = 4;
  // Of the teacher's sequences, which have the passage of each question in the prompt; 0: there is
  // no teacher.
  int64_t teacher_tokens = 0;
  // Weight of an entry whose every token counts beside those whose answers count.
  double book_weight = 0.25;
  uint64_t seed = 0;
};

class BatchMaker : public BatchSource {
 public:
  // `texts` and `writer` outlive it. InvalidArgument where the options or texts give no batch.
  static absl::StatusOr<std::unique_ptr<BatchMaker>> Create(const TrainingTexts* texts,
                                                            const ExchangeWriter* writer,
                                                            const BatchOptions& options);
  // With packings, any d but 0 is as good.
  absl::StatusOr<TrainingBatch> Make(uint64_t step, int64_t d) const override;
  int64_t most_contexts() const override {
    return options_.packings.empty() ? options_.n_entries : std::numeric_limits<int64_t>::max();
  }
  uint64_t seed() const override { return options_.seed; }
  const BatchOptions& options() const { return options_; }

 private:
  struct Entry;
  BatchMaker(const TrainingTexts* texts, const ExchangeWriter* writer, const BatchOptions& options)
      : texts_(*texts),
        writer_(*writer),
        options_(options),
        facts_(texts->words),
        similar_(FindSimilarPassages(texts->passages, kSimilar)),
        neighbours_(FindNeighbours(texts->passages, texts->file_begins, kReach)),
        file_shares_(FileShares(*texts)) {}
  static constexpr size_t kSimilar = 8;
  static constexpr size_t kReach = 4;
  // By file: what it and those before it have of the choices, at last 1. By the square root of
  // their numbers of passages: where all passages are alike the largest file is nearly all that is
  // learned, where all files are alike small ones are learned by heart.
  static std::vector<double> FileShares(const TrainingTexts& texts);
  size_t PickPassage(Random& random) const;
  // Passage p within what stands beside it in its file, of any length up to passage_bytes.
  std::string Surrounded(size_t p, Random& random) const;
  // `own` (may be empty) among others that could be taken for passage p, in any order.
  std::vector<std::string> PassagesOfPrompt(const std::string& own, size_t p, Random& random) const;
  absl::StatusOr<TrainingBatch> MakePacked(Random& random) const;
  Tokens BookPiece(int64_t n_tokens, Random& random) const;
  // Whether it fitted.
  bool AddExchange(const Exchange& exchange, int64_t memory_begin, int64_t memory_end,
                   Entry* entry) const;
  // For the teacher, the exchange that was added last, with its passage in the prompt.
  absl::Status AddTaught(const std::string& passage, const Exchange& exchange, Entry* entry) const;
  void MakeBookEntry(Random& random, Entry* entry) const;
  absl::Status MakeQuestionEntry(Random& random, Entry* entry) const;
  absl::Status MakeFactEntry(Random& random, Entry* entry) const;
  absl::Status MakeLocalEntry(Random& random, Entry* entry) const;

  const TrainingTexts& texts_;
  const ExchangeWriter& writer_;
  const BatchOptions options_;
  const FactMaker facts_;
  const std::vector<std::vector<size_t>> similar_;     // by passage
  const std::vector<std::vector<size_t>> neighbours_;  // by passage
  const std::vector<double> file_shares_;
};

}  // namespace fovea::train
