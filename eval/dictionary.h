// The Focused Transformer paper's dictionary lookup (arXiv 2307.03170, section 5.2 and appendix E):
// how many definitions of a memory a model that was trained for it can look up.
#pragma once

#include <cstdint>
#include <span>

#include "eval/evaluation.h"

namespace fovea::eval {

struct DictionaryOptions {
  CommonOptions common;       // tokens: of definitions, ten each
  int64_t n_questions = 200;  // whole sequences of 25
  int64_t n_lookalikes = 0;   // for each key: others that differ from it in one symbol, to 63
};

// What of a sequence's answers the likeliest tokens are.
struct LookedUp {
  int64_t n_symbols = 0, n_right_symbols = 0;
  int64_t n_words = 0, n_right_words = 0;  // all symbols of an answer
};
// ids: [n_tokens] of questions with their answers, a token a character; logits: [n_tokens,
// vocab_size], after each of them. Adds to `looked_up`.
void CountRight(std::span<const int32_t> ids, std::span<const float> logits, LookedUp* looked_up);

// Memories of texts/dictionary.h's definitions, and questions for keys chosen among them at random,
// 25 after another in a local context, each followed by its right answer. Rows: tokens, way, right
// (of the answers' symbols: the likeliest token), answers (all four symbols of it), seconds (median
// of a sequence's forward pass).
absl::StatusOr<Report> RunDictionary(const Subject& subject, const DictionaryOptions& options);

}  // namespace fovea::eval
