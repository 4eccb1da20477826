// How well a model foretells a book, without memory and with other text in it.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct PerplexityOptions {
  CommonOptions common;        // tokens: of each book, in the memory
  int64_t n_books = 4;         // the first ones of the texts that are long enough
  int64_t part_tokens = 2048;  // of each book, behind what lies in the memory: what is foretold
  int64_t local_tokens =
      512;  // it is foretold in windows, each by itself; the first token is given
};

// Rows: memory ("none", "same book", "other books", "all books"), tokens of it that are seen, mode,
// perplexity, and its ratio to that without memory (over windows, paired). The memory holds the
// tokens that come before the part, of all books; what is seen of it is a matter of scope.
absl::StatusOr<Report> RunPerplexity(const Subject& subject, const PerplexityOptions& options);

// Mean negative log-likelihood (natural) of ids[1 …] given those before, from position 0, with
// `memory` (may be null).
absl::StatusOr<double> MeanNegativeLogLikelihood(model::Transformer* model,
                                                 std::span<const int32_t> ids,
                                                 model::MemorySource* memory);

}  // namespace fovea::eval
