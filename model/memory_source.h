// What a memory layer asks of a memory. The model knows no more of memories than this: given the
// queries of a memory layer, return a partial attention over keys that are not in the local
// context. Implemented in memory/.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace fovea::model {

struct MemoryQuery {
  int memory_layer = 0;              // index into mem_layers, not the number of the layer
  const float* queries = nullptr;    // [n_queries, n_heads, head_dim], with their local rotation
  const float* local_lse = nullptr;  // [n_queries, n_heads]: log-sum-exp (natural logarithm) of the
                                     // local scores, so that the source can tell its share of the
                                     // whole softmax; may be null
  int64_t n_queries = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;  // scores = scale · <query, key>
};

// Where a source takes queries and puts partials.
enum class MemoryPlace {
  kHost,    // in the host's memory: a model on another device copies them there and back
  kDevice,  // in memory of the device that the model runs on
};

class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // Of all pointers below. Does not change.
  virtual MemoryPlace place() const { return MemoryPlace::kHost; }
  // output = [n_queries, n_heads, head_dim], lse = [n_queries, n_heads], natural logarithm; where
  // nothing was found output 0 and lse −inf. Called by one thread at a time, layers in order.
  virtual absl::Status Attend(const MemoryQuery& query, float* output, float* lse) = 0;
};

}  // namespace fovea::model
