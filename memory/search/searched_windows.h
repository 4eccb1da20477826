// The windows that a search sees, stored ones and those of a session: in which of them a slot lies,
// and their keys and values as ops want them, in runs for scans and in tables for what was found.
// What was read stays here where there is room for all of it, else it is left to the cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/entries.h"
#include "base/progress.h"
#include "compute/device.h"
#include "compute/entry_table.h"
#include "compute/key_scan.h"
#include "memory/block_cache.h"
#include "memory/generation.h"
#include "model/transformer.h"

namespace fovea::memory {

// Slots of a session's windows begin here, far above any stored one.
inline constexpr int64_t kSessionSlots = int64_t{1} << 62;

// Keys of some windows, one list of runs per KV head, with what keeps them alive.
struct LoadedRuns {
  std::vector<HalfBlock> blocks;
  std::vector<std::vector<compute::KeyRun>> runs;  // [n_kv_heads]
};

// Halves of blocks of one memory layer that calls use, by the windows' numbers.
struct BlockTable {
  std::vector<HalfBlock> blocks;             // empty: not loaded
  std::vector<compute::EntryBlock> entries;  // what the blocks hold, then the session's
  std::vector<uint32_t> wanted;              // what is used now, each once
  std::vector<bool> is_wanted;
};

// Tokens [begin, end) of a window that may be selected.
struct SelectableTokens {
  EntryPointer keys;    // of the whole window: [n_kv_heads, n_tokens, head_dim]
  EntryPointer values;  // alike
  int64_t n_tokens;
  int64_t begin;
  int64_t end;
};

// Not thread-safe; loads with the device's threads.
class SearchedWindows {
 public:
  // `windows` and `scanned`: see SearchPlan. The device outlives this object.
  SearchedWindows(compute::Device* device, std::shared_ptr<const Generation> generation,
                  std::vector<uint32_t> windows, std::vector<uint32_t> scanned, Progress progress);

  int64_t n_kv_heads() const { return n_kv_heads_; }
  int64_t head_dim() const { return head_dim_; }
  int n_mem_layers() const { return n_mem_layers_; }
  // Nothing is stored and nothing was added.
  bool empty() const { return windows_.empty() && session_.empty(); }
  uint64_t n_stored_tokens() const { return n_tokens_; }
  uint64_t n_session_tokens() const;
  // Whether a stored window holds `slot`.
  bool Allows(Slot slot) const;

  void AddSessionWindow(const model::EncodedWindow& window);
  size_t n_session_windows() const { return session_.size(); }
  void TruncateSession(size_t n) {
    if (n < session_.size()) session_.resize(n);
  }

  // Where an allowed slot lies: the number of its window, and its token there. Windows of the
  // session are numbered after the stored ones.
  compute::EntryPlace PlaceOf(int64_t slot) const {
    return slot < kSessionSlots ? StoredPlaceOf(slot) : SessionPlaceOf(slot);
  }

  // Calls visit(runs) for the session's windows and the scanned ones (or all), in portions that the
  // cache holds.
  absl::Status ForEachRuns(int memory_layer, bool all_windows,
                           absl::FunctionRef<absl::Status(const LoadedRuns&)> visit);
  // Calls visit(tokens) for all that may be selected, of the session and stored.
  absl::Status ForEachSelectable(int memory_layer,
                                 absl::FunctionRef<absl::Status(const SelectableTokens&)> visit);

  BlockTable* keys(int memory_layer) { return &keys_[static_cast<size_t>(memory_layer)]; }
  BlockTable* values(int memory_layer) { return &values_[static_cast<size_t>(memory_layer)]; }
  // Names a stored window that an op is going to look into.
  void Want(uint32_t window, BlockTable* table) const {
    if (table->is_wanted.empty()) {
      table->is_wanted.resize(windows_.size());
      table->blocks.resize(windows_.size());
      table->entries.resize(windows_.size());
    }
    if (table->is_wanted[window]) return;
    table->is_wanted[window] = true;
    table->wanted.push_back(window);
  }
  // Loads what is wanted and not there, in parallel. After an error the use has ended.
  absl::Status LoadWantedKeys(int memory_layer) { return LoadWanted(memory_layer, true); }
  // With the session's behind them.
  absl::Status LoadWantedValues(int memory_layer);
  // Ends the use: blocks stay where there is room for all, and are left to the cache where not.
  void EndUse(BlockTable* table) const;

 private:
  // Slots for which one look into a table replaces a binary search over the windows.
  static constexpr uint64_t kBucketSlots = 256;

  struct SessionWindow {
    int64_t first_slot;
    int64_t n_tokens;
    std::vector<storage::Block> blocks;  // [n_mem_layers], [n_kv_heads, n_tokens, head_dim] each
  };

  // What of a block is loaded: the last, values of which single tokens are wanted.
  enum class Half { kKeys, kValues, kMappedValues };

  BlockCache& cache() const { return generation_->source->cache(); }
  const LiveWindow& window_at(uint32_t index) const { return generation_->windows[index]; }
  compute::EntryPlace StoredPlaceOf(int64_t slot) const {
    const auto at = static_cast<Slot>(slot);
    const Slot first = window_at(windows_.front()).slot_begin;
    FOVEA_CHECK(at >= first);
    const size_t bucket = (at - first) / kBucketSlots;
    FOVEA_CHECK(bucket < bucket_windows_.size());
    uint32_t i = bucket_windows_[bucket];
    while (i + 1 < windows_.size() && window_at(windows_[i + 1]).slot_begin <= at) ++i;
    return {i, static_cast<uint32_t>(at - window_at(windows_[i]).slot_begin)};
  }
  compute::EntryPlace SessionPlaceOf(int64_t slot) const;
  // Loads the halves of `windows` in parallel.
  absl::StatusOr<std::vector<HalfBlock>> LoadBlocks(std::span<const uint32_t> windows,
                                                    int memory_layer, Half half);
  absl::StatusOr<LoadedRuns> LoadRuns(std::span<const uint32_t> windows, int memory_layer);
  LoadedRuns SessionRuns(int memory_layer) const;
  absl::Status LoadWanted(int memory_layer, bool keys);

  compute::Device* device_;
  std::shared_ptr<const Generation> generation_;
  std::vector<uint32_t> windows_;  // indexes into generation_->windows, by slot
  std::vector<uint32_t> scanned_;
  Progress progress_;
  int64_t n_kv_heads_ = 0;
  int64_t head_dim_ = 0;
  int n_mem_layers_ = 0;
  EntryType entry_type_ = EntryType::kBFloat16;  // of stored entries, and of the session's
  uint64_t n_tokens_ = 0;
  // By (slot − slot of the first window) / kBucketSlots: the number of the window to look from.
  std::vector<uint32_t> bucket_windows_;
  bool keep_blocks_ = false;           // keys and values of all windows fit the cache
  std::vector<BlockTable> keys_;       // [n_mem_layers]
  std::vector<BlockTable> values_;     // [n_mem_layers]
  bool keep_runs_ = false;             // all scanned keys fit the cache
  std::vector<LoadedRuns> kept_runs_;  // [n_mem_layers], filled on first use
  std::vector<bool> runs_loaded_;
  std::vector<SessionWindow> session_;
  int64_t next_session_slot_ = kSessionSlots;
};

}  // namespace fovea::memory
