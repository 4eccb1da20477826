// Queries as an index of a memory's keys is asked them (index/key_space.h), on the device: those of
// each KV head beside one another, with further dimensions.
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct IndexQueriesArgs {
  ConstView queries;  // [n_queries, n_heads, head_dim], float32, contiguous
  // Of each KV head's index, [n_kv_heads], float32: queries are scaled to this norm. Of no size:
  // they stay as they are.
  ConstView radii = {};
  // Where an index holds the keys of all heads, apart by a dimension for each: queries of a KV head
  // have this number in dimension first_axis + kv_head, and 0 in the other ones. first_axis is at
  // least head_dim; 0: there are none.
  int64_t first_axis = 0;
  float axis_value = 0.0f;
  // = [n_kv_heads, n_queries · group, index_dim], float32, contiguous; index_dim >= head_dim. Row
  // t · group + g of a KV head is query t of its query head g. What is not said above is 0.
  View out;
};
// A query of zeros, or whose norm is not finite, is not scaled. InvalidArgument for shapes that do
// not fit each other.
absl::Status IndexQueries(Device& device, const IndexQueriesArgs& args);

}  // namespace fovea::compute
