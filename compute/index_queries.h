// Queries as an index of a memory's keys is asked them (index/key_space.h), on the device: those of
// each KV head beside one another, with further dimensions of zeros.
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct IndexQueriesArgs {
  ConstView queries;  // [n_queries, n_heads, head_dim], float32, contiguous
  // Of each KV head's index, [n_kv_heads], float32: queries are scaled to this norm. Of no size:
  // they stay as they are.
  ConstView radii = {};
  // = [n_kv_heads, n_queries · group, index_dim], float32, contiguous; index_dim >= head_dim. Row
  // t · group + g of a KV head is query t of its query head g.
  View out;
};
// A query of zeros, or whose norm is not finite, is not scaled. InvalidArgument for shapes that do
// not fit each other.
absl::Status IndexQueries(Device& device, const IndexQueriesArgs& args);

}  // namespace fovea::compute
