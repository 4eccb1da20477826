// Exact scores of candidates that an index or a coded scan found: each is scored with its stored
// key, and the best of each query are kept. What comes between a scan of codes (code_scan.h) and
// attention to the kept keys (top_k_attention.h).
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/entry_table.h"
#include "compute/key_scan.h"
#include "compute/view.h"

namespace fovea::compute {

// What one segment's index found for each query and head.
struct Candidates {
  int64_t first_id = 0;  // added to each id
  int64_t n_per_row = 0;
  std::span<const int64_t> ids;        // [n_queries, n_heads, n_per_row]; −1: none
  std::span<const EntryPlace> places;  // of the same shape: where the keys lie in the table
};

struct RescoreArgs {
  ConstView queries;                       // [n_queries, n_heads, head_dim], float32, contiguous
  std::span<const Candidates> candidates;  // of any number of segments; no id twice in a row
  EntryTable keys;
};
// Pushes into *best, one list for each KV head: query head h of query t has list t · group +
// h mod group of best[h / group], group = n_heads / n_kv_heads. Scores are KeyScore's, bit for bit.
// InvalidArgument for shapes that do not fit each other.
absl::Status Rescore(Device& device, const RescoreArgs& args, std::span<TopK> best);

}  // namespace fovea::compute
