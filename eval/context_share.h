// How well memory layers tell contexts apart: what share of the attention that the memory gets goes
// to the context that a text goes on from, among d of them (r_d: Focused Transformer, arXiv
// 2307.03170, section 3.2; without training it is near 1/d).
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct ContextShareOptions {
  CommonOptions common;                            // of it texts and seed
  std::vector<int64_t> contexts = {1, 4, 16, 64};  // d
  int64_t n_samples = 16;                          // texts that go on
  int64_t context_tokens = 1024;
  int64_t query_tokens = 128;  // of the text that goes on
};

// Attention is dense. Rows: d, layer, r_d (mean over samples of the own context's share, summed
// over queries and heads), first (the own context has the most), 1/d. Unimplemented where the
// memory is searched on a GPU.
absl::StatusOr<Report> RunContextShare(const Subject& subject, const ContextShareOptions& options);

}  // namespace fovea::eval
