// What searches on a device kept, for naming sources: positions, scores and log-sum-exps stay
// there, and are added up on the host when somebody asks or when they take too much room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "compute/device.h"
#include "model/memory_source.h"

namespace fovea::memory {

// Not thread-safe. A search of a layer: Reserve, the search into that room, Add.
class DeviceMassLog {
 public:
  DeviceMassLog() = default;
  // Positions from n_positions on (a conversation's own tokens) are nobody's source. `device`
  // outlives the log.
  DeviceMassLog(compute::Device* device, int n_mem_layers, int64_t n_positions)
      : device_(device), n_positions_(n_positions), mass_(static_cast<size_t>(n_mem_layers)) {}

  // In the device's memory, as compute::MemoryAttentionArgs has them.
  struct Room {
    int64_t* positions;  // [n_queries, n_heads, top_k]
    float* scores;       // [n_queries, n_heads, top_k]
  };
  // For a query with is_step the room is the same in every step, as long as top_k is.
  absl::StatusOr<Room> Reserve(const model::MemoryQuery& query, int top_k);
  // What the search put into the room, with its lse, [n_queries, n_heads]. For a query with is_step
  // all of it is queued on the device, and may be recorded.
  absl::Status Add(const model::MemoryQuery& query, const float* lse);
  // The same for several logs of one device whose memories are searched by one call. No steps.
  struct Call {
    DeviceMassLog* log;
    const model::MemoryQuery* query;
    int64_t first_row = 0;       // of its rows, among those that room, lse and local_lse have
    int64_t first_position = 0;  // of its keys, among those that are searched
  };
  static absl::StatusOr<Room> ReserveTogether(std::span<const Call> calls, int top_k);
  static absl::Status AddTogether(std::span<const Call> calls, const float* lse);
  // Before the layers of a step are searched, or what they queued is replayed.
  absl::Status BeginStep();
  // Rows (heads) of all steps.
  int64_t n_step_rows() const { return n_steps_ * steps_.n_heads; }

  // [n_mem_layers]: position → sum of softmax weights, local context included.
  absl::StatusOr<const std::vector<absl::flat_hash_map<int64_t, float>>*> AddUp();
  absl::Status Reset();

 private:
  // Of one call: some rows of what several may have.
  struct Buffers {
    compute::Buffer positions, scores, lse;
    compute::Buffer local_lse;  // none without a local context
  };
  struct Kept {
    int memory_layer;
    int64_t first_row;
    int64_t first_position;
    int64_t n_rows;
    int top_k;
    float scale;
    bool has_local_lse;
    std::shared_ptr<const Buffers> rows;
    size_t size_bytes() const {
      const size_t row_bytes =
          static_cast<size_t>(top_k) * (sizeof(int64_t) + sizeof(float)) + 2 * sizeof(float);
      return static_cast<size_t>(n_rows) * row_bytes;
    }
  };
  // Of steps of one token, a row each, written by ops that are recorded once
  // (compute/append_row.h): [positions | scores | lse | local_lse] of all heads.
  struct Steps {
    int64_t n_heads = 0;  // 0: there was no step yet
    int top_k = 0;
    float scale = 0.0f;
    int64_t capacity = 0;                    // rows
    compute::Buffer kept = {};               // [positions | scores] of a call
    std::vector<compute::Buffer> rows = {};  // [n_mem_layers]: [capacity, row_bytes()]
    compute::Buffer next_row = {};           // int32
    size_t n_kept() const { return static_cast<size_t>(n_heads * top_k); }
    size_t kept_bytes() const { return n_kept() * (sizeof(int64_t) + sizeof(float)); }
    size_t row_bytes() const {
      return kept_bytes() + 2 * static_cast<size_t>(n_heads) * sizeof(float);
    }
  };
  struct Rows {
    size_t n_rows;
    int top_k;
    float scale;
    const int64_t* positions;  // [n_rows, top_k]
    const float* scores;       // [n_rows, top_k]
    const float* lse;          // [n_rows]
    const float* local_lse;    // [n_rows] or null
    int64_t first_position = 0;
  };
  absl::StatusOr<Room> ReserveStep(const model::MemoryQuery& query, int top_k);
  absl::Status AddStep(const model::MemoryQuery& query, const float* lse);
  absl::Status AddUpCalls();
  absl::Status AddUpSteps();
  absl::Status ForgetSteps();
  void AddRows(int memory_layer, const Rows& rows);

  compute::Device* device_ = nullptr;
  int64_t n_positions_ = 0;
  std::optional<Kept> pending_;  // reserved, not added yet
  std::deque<Kept> calls_;
  size_t calls_bytes_ = 0;
  Steps steps_;
  int64_t n_steps_ = 0;         // since the last Reset
  int64_t n_logged_steps_ = 0;  // in `rows`, at most
  std::vector<absl::flat_hash_map<int64_t, float>> mass_;
};

}  // namespace fovea::memory
