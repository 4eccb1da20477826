// What a memory layer asks of a memory. The model knows no more of memories than this: given the
// queries of a memory layer, return a partial attention over keys that are not in the local
// context. Implemented in memory/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"
#include "compute/device.h"
#include "compute/key_scan.h"

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
  float scale = 1.0f;    // scores = scale · <query, key>
  bool is_step = false;  // of a step that BeginStep announced
};

// Where a source takes queries and puts partials.
enum class MemoryPlace {
  kHost,    // in the host's memory: a model on another device copies them there and back
  kDevice,  // in memory of the device that the model runs on
};

// What one of several sources is asked, and what it answered.
class MemorySource;
struct MemoryRequest {
  MemorySource* memory = nullptr;
  MemoryQuery query;
  float* output = nullptr;  // as Attend has them
  float* lse = nullptr;
  absl::Status status = absl::OkStatus();
};

class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // Of all pointers below. Does not change.
  virtual MemoryPlace place() const { return MemoryPlace::kHost; }
  // output = [n_queries, n_heads, head_dim], lse = [n_queries, n_heads], the natural logarithm of
  // the sum of exp(score); where nothing was found output 0 and lse −inf. Called by one thread at a
  // time, layers in order.
  virtual absl::Status Attend(const MemoryQuery& query, float* output, float* lse) = 0;

  // Attend of several sources that take and put what lies in the device's memory, by one thread:
  // each request's output and lse are what its memory's Attend gives, bit for bit, and its status
  // is its own. Asked of the first request's memory. Sources that search the same keys may read
  // them once for all requests whose queries, outputs and log-sum-exps lie one after another.
  virtual void AttendTogether(std::span<MemoryRequest> requests);

  // Before a step of one token whose queries may be asked as a recording (compute/device.h): Attend
  // is called with is_step once for each memory layer, or what these calls queued in an earlier
  // step is replayed in their place. `recording_id`: another one whenever an earlier recording
  // would not do what the calls would; 0: they cannot be recorded, and BeginStep does nothing.
  virtual absl::Status BeginStep(uint64_t* recording_id) {
    *recording_id = 0;
    return absl::OkStatus();
  }
};

// Whether `next` asks the same layer of a memory of the same shape as `before`, and all of its
// numbers lie behind those of `before`: a search can take both for one query of more positions.
bool FollowsInMemory(const MemoryRequest& before, const MemoryRequest& next);

// Calls attend(neighbours) for each run of requests of which each `can_join` the one before it; a
// request that stands alone is asked by its memory's Attend.
void AttendInRuns(
    std::span<MemoryRequest> requests,
    absl::FunctionRef<bool(const MemoryRequest& before, const MemoryRequest& next)> can_join,
    absl::FunctionRef<void(std::span<MemoryRequest>)> attend);

// The best keys that a source found, by their names in that source: one list for each KV head,
// rows = position · (query heads of the KV head) + head among them. Scores are unscaled.
using MemoryHits = std::vector<compute::TopK>;  // [n_kv_heads]

// A source that can be one of several (memory/search/sharded_source.h). The best top_k keys of all
// of them are known only after each has named its own, so it answers in two phases; what share of
// the whole softmax a key has is known only after all have answered. Where keys lie in one device's
// memory, they are searched as one instead.
class ShardSource : public MemorySource {
 public:
  // Its best keys. None where it holds nothing.
  virtual absl::StatusOr<MemoryHits> FindTop(const MemoryQuery& query, int top_k) = 0;
  // A partial attention over *hits, which are of FindTop with the same query, or some of them: as
  // Attend returns it, neutral where there are none. (A dense source attends to all it holds.)
  virtual absl::Status AttendTo(const MemoryQuery& query, MemoryHits* hits, float* output,
                                float* lse) = 0;
  // Both phases of shards whose place is the device's, in one, asked of the first of them: as if
  // all of their keys lay in one memory, of equal scores those of the earlier shard first. Each
  // adds the shares of its own keys to what names sources. Unimplemented where a source has no
  // such.
  virtual absl::Status AttendAsOne(std::span<ShardSource* const> /*shards*/,
                                   const MemoryQuery& /*query*/, int /*top_k*/, float* /*output*/,
                                   float* /*lse*/) {
    return absl::UnimplementedError("shards in the device's memory: these have no search in one");
  }
  // Adds the shares of *hits in the whole softmax to what names sources. lse: [n_queries, n_heads],
  // of what all sources attended to; query.local_lse is added to it.
  virtual absl::Status AddMass(const MemoryQuery& query, MemoryHits* hits, const float* lse) = 0;
};

}  // namespace fovea::model
