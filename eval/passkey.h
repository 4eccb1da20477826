// The pass key test (Landmark Attention, Mohtashami and Jaggi 2023; the Focused Transformer's
// section 5.2): a number somewhere in repeated filler, asked for by continuing a sentence.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct PasskeyOptions {
  CommonOptions common;
  int64_t n_trials = 20;  // keys and places, for each size
};

// Rows: tokens, way, right (the first number of the answer is the key). Keys are versions of one
// document, so that only windows around the old and the new place are encoded for each.
absl::StatusOr<Report> RunPasskey(const Subject& subject, const PasskeyOptions& options);

}  // namespace fovea::eval
