// How good an index is, judged by needle recall, and how much effort it needs to be good enough.
//
// Needle recall: over *confident* queries only (the softmax over their exact best 16 keys puts at
// least half of its mass on one key), the share whose best key is among what the index found.
// Average recall misleads: most queries look for nothing in particular (index-study).
#pragma once

#include <cstdint>
#include <memory>
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
absl::StatusOr<NeedleRecall> MeasureNeedleRecall(compute::Device& device, const LayerIndex& index,
                                                 const std::vector<HeadKeys>& keys,
                                                 const CalibrationQueries& queries, Effort effort);

struct CalibratedIndex {
  std::unique_ptr<LayerIndex> index;  // null: search exactly
  std::string spec;                   // what was built, "exact" for none
  Effort effort;
  NeedleRecall needle_recall;
  // Time of a search with rescoring / time of the exact scan, as measured here with one position
  // at a time, which is how answers are generated; 1 for the exact scan.
  double relative_cost = 1.0;
};

// Fewer confident pairs in a sample than this say nothing about an index.
inline constexpr int64_t kMinConfident = 32;

// Keys, queries and what compares them lie with the host; a GPU builds and searches what it can
// (LayerIndex::Build, CopyTo).
//
// Builds `spec` and finds the smallest effort whose needle recall on the sample is at least
// `target`; the largest effort when none reaches it. Where the sample holds no confident query,
// that is the smallest there is: look at needle_recall.n_confident. "exact" builds nothing. "auto":
// BuildCheapest of AutoSpecs; the exact scan at once below `kAutoExactTokens` keys, where there is
// less to gain than rescoring costs. `unjudged_spec`: what "auto" builds where the sample says too
// little to choose by; empty: nothing. InvalidArgument for a specification that cannot hold these
// keys and for queries of another shape.
inline constexpr int64_t kAutoExactTokens = 4096;
absl::StatusOr<CalibratedIndex> BuildCalibrated(compute::Device& device, const std::string& spec,
                                                const std::vector<HeadKeys>& keys, int64_t head_dim,
                                                const CalibrationQueries& queries, double target,
                                                const Progress& progress,
                                                const std::string& unjudged_spec = "");

// The cheapest, by measured time, of the exact scan and those of `specs` that reach the target;
// after a coded scan that does so with few candidates, those of more bits are not built (name them
// by bits). The exact scan where the sample holds fewer than kMinConfident confident pairs to judge
// by.
absl::StatusOr<CalibratedIndex> BuildCheapest(compute::Device& device,
                                              const std::vector<std::string>& specs,
                                              const std::vector<HeadKeys>& keys, int64_t head_dim,
                                              const CalibrationQueries& queries, double target,
                                              const Progress& progress);

// What "auto" tries for so many keys: scans of codes, and from kAutoIvfTokens on, where even the
// codes take long to read, an IVF, which is slow to build and takes more bytes than the codes of 2
// and 4 bits. HNSW is not tried: it takes as long to search and far longer to build.
inline constexpr int64_t kAutoIvfTokens = 1 << 22;
std::vector<std::string> AutoSpecs(int64_t n_keys);

}  // namespace fovea::index
