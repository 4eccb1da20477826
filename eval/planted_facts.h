// Facts planted in books: how many of them are answered, and how many passages named.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct FactsOptions {
  CommonOptions common;
  int64_t n_facts = 64;
  int64_t n_lookalikes = 0;  // beside each fact: others that differ in one of the words asked for
  int64_t n_trials = 1;      // each with facts of its own, in the same books
};

// Facts of texts/facts.h, with names and things of the books. Rows: tokens, way, right (the answer
// holds the fact's), named (its passage is among the first three sources).
absl::StatusOr<Report> RunFacts(const Subject& subject, const FactsOptions& options);

}  // namespace fovea::eval
