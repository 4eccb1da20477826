// How good an index is, judged by needle recall, and how much effort it needs to be good enough.
//
// Needle recall: over *confident* queries only (the softmax over their exact best 16 keys puts at
// least half of its mass on one key), the share whose best key is among what the index found.
// Average recall misleads: most queries look for nothing in particular (index-study).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "index/layer_index.h"

namespace fovea::index {

struct CalibrationQueries {
  std::vector<float> queries;  // [n_queries, n_heads, head_dim]
  int64_t n_queries = 0;
  int64_t n_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;  // of the scores, for the softmax
};

struct NeedleRecall {
  double recall = 1.0;      // 1 when there is no confident query
  int64_t n_confident = 0;  // (query, head) pairs
};

// Exact best keys of the sample by a KeyScan, then what `index` finds with this effort.
struct Effort {
  int n_probe = 0;
  int n_candidates = 0;
};
absl::StatusOr<NeedleRecall> MeasureNeedleRecall(compute::Device& device, const LayerIndex& index,
                                                 const std::vector<HeadKeys>& keys,
                                                 const CalibrationQueries& queries, Effort effort);

struct CalibratedIndex {
  std::unique_ptr<LayerIndex> index;  // null: search exactly
  std::string spec;                   // what was built, "exact" for none
  Effort effort;
  NeedleRecall needle_recall;
  double relative_cost = 1.0;  // time of a search / time of the exact scan, as measured
};

// Builds `spec` and finds the smallest effort whose needle recall on the sample is at least
// `target`; the largest effort when none reaches it. "exact" builds nothing. "auto": the cheapest
// of the exact scan and a few FAISS specifications that reaches the target, by measured time; the
// exact scan at once below `kAutoExactTokens` keys, and where the sample holds too few confident
// queries to judge (fewer than 32).
inline constexpr int64_t kAutoExactTokens = 1 << 20;
absl::StatusOr<CalibratedIndex> BuildCalibrated(compute::Device& device, const std::string& spec,
                                                const std::vector<HeadKeys>& keys, int64_t head_dim,
                                                const CalibrationQueries& queries, double target,
                                                const Progress& progress);

}  // namespace fovea::index
