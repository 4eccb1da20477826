// The Focused Transformer paper's dictionary lookup (arXiv 2307.03170, section 5.2 and appendix E):
// how many definitions of a memory a model that was trained for it can look up.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct DictionaryOptions {
  CommonOptions common;       // tokens: of definitions, ten each
  int64_t n_questions = 200;  // whole sequences of 25
  int64_t n_lookalikes = 0;   // for each key: others that differ from it in one symbol, to 63
};

// Memories of texts/dictionary.h's definitions, and questions for keys chosen among them at random,
// 25 after another in a local context, each followed by its right answer. Rows: tokens, way, right
// (of the answers' symbols: the likeliest token), answers (all four symbols of it), seconds (median
// of a sequence's forward pass).
absl::StatusOr<Report> RunDictionary(const Subject& subject, const DictionaryOptions& options);

}  // namespace fovea::eval
