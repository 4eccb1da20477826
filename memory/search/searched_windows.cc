#include "memory/search/searched_windows.h"

#include <algorithm>
#include <utility>

#include "memory/block_layout.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using compute::EntryPlace;

// Windows whose keys and values are loaded together for a pass over all of them.
constexpr size_t kWindowsAtOnce = 16;

}  // namespace

SearchedWindows::SearchedWindows(compute::Device* device,
                                 std::shared_ptr<const Generation> generation,
                                 std::vector<uint32_t> windows, std::vector<uint32_t> scanned,
                                 Progress progress)
    : device_(device),
      generation_(std::move(generation)),
      windows_(std::move(windows)),
      scanned_(std::move(scanned)),
      progress_(std::move(progress)) {
  const auto& settings = generation_->settings;
  if (settings) {
    n_kv_heads_ = settings->n_kv_heads;
    head_dim_ = settings->head_dim;
    n_mem_layers_ = settings->n_mem_layers;
    entry_type_ = settings->entry_type;
  }
  for (uint32_t w : windows_) n_tokens_ += window_at(w).n_tokens;
  uint64_t scanned_tokens = 0;
  for (uint32_t w : scanned_) scanned_tokens += window_at(w).n_tokens;
  const uint64_t key_bytes =
      scanned_tokens * EntryBytes(entry_type_) * n_mem_layers_ * n_kv_heads_ * head_dim_;
  keep_runs_ = key_bytes <= cache().capacity_bytes();
  const uint64_t all_bytes =
      2 * n_tokens_ * EntryBytes(entry_type_) * n_mem_layers_ * n_kv_heads_ * head_dim_;
  keep_blocks_ = all_bytes <= cache().capacity_bytes();
  const auto n_layers = static_cast<size_t>(n_mem_layers_);
  keys_.resize(n_layers);
  values_.resize(n_layers);
  kept_runs_.resize(n_layers);
  runs_loaded_.assign(n_layers, false);
  if (windows_.empty()) return;
  const auto begin_of = [this](uint32_t i) { return window_at(windows_[i]).slot_begin; };
  const LiveWindow& last = window_at(windows_.back());
  uint32_t i = 0;
  for (Slot slot = begin_of(0); slot < last.slot_begin + last.n_tokens; slot += kBucketSlots) {
    while (i + 1 < windows_.size() && begin_of(i + 1) <= slot) ++i;
    bucket_windows_.push_back(i);
  }
}

uint64_t SearchedWindows::n_session_tokens() const {
  uint64_t n = 0;
  for (const SessionWindow& window : session_) n += static_cast<uint64_t>(window.n_tokens);
  return n;
}

bool SearchedWindows::Allows(Slot slot) const {
  auto it = std::upper_bound(windows_.begin(), windows_.end(), slot,
                             [this](Slot s, uint32_t w) { return s < window_at(w).slot_begin; });
  if (it == windows_.begin()) return false;
  const LiveWindow& window = window_at(*--it);
  return slot < window.slot_begin + window.n_tokens;
}

void SearchedWindows::AddSessionWindow(const model::EncodedWindow& window) {
  SessionWindow added{next_session_slot_, window.n_tokens, {}};
  next_session_slot_ += window.n_tokens;
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    added.blocks.push_back(ToBlock(window, layer, n_kv_heads_, head_dim_, entry_type_));
  }
  session_.push_back(std::move(added));
}

EntryPlace SearchedWindows::SessionPlaceOf(int64_t slot) const {
  for (size_t i = 0; i < session_.size(); ++i) {
    const int64_t offset = slot - session_[i].first_slot;
    if (offset < 0 || offset >= session_[i].n_tokens) continue;
    return {static_cast<uint32_t>(windows_.size() + i), static_cast<uint32_t>(offset)};
  }
  FOVEA_CHECK(false);
  return {};
}

absl::Status SearchedWindows::LoadWanted(int memory_layer, bool keys) {
  BlockTable* const table = keys ? this->keys(memory_layer) : values(memory_layer);
  std::vector<uint32_t> missing;  // numbers in windows_
  for (const uint32_t window : table->wanted) {
    if (table->blocks[window].empty()) missing.push_back(window);
  }
  if (missing.empty()) return absl::OkStatus();
  std::sort(missing.begin(), missing.end());  // the order in which they lie in the store
  std::vector<uint32_t> indexes;
  indexes.reserve(missing.size());
  for (const uint32_t window : missing) indexes.push_back(windows_[window]);
  absl::StatusOr<std::vector<HalfBlock>> loaded =
      LoadBlocks(indexes, memory_layer, keys ? Half::kKeys : Half::kMappedValues);
  if (!loaded.ok()) {
    EndUse(table);
    return loaded.status();
  }
  for (size_t i = 0; i < missing.size(); ++i) {
    HalfBlock& block = table->blocks[missing[i]] = std::move((*loaded)[i]);
    table->entries[missing[i]] = {block.data(), window_at(indexes[i]).n_tokens};
  }
  return absl::OkStatus();
}

absl::Status SearchedWindows::LoadWantedValues(int memory_layer) {
  RETURN_IF_ERROR(LoadWanted(memory_layer, false));
  BlockTable& table = *values(memory_layer);
  table.entries.resize(windows_.size());
  for (const SessionWindow& window : session_) {
    table.entries.push_back({window.blocks[memory_layer].values.data(), window.n_tokens});
  }
  return absl::OkStatus();
}

void SearchedWindows::EndUse(BlockTable* table) const {
  for (const uint32_t window : table->wanted) {
    table->is_wanted[window] = false;
    if (keep_blocks_) continue;
    table->blocks[window] = {};
    table->entries[window] = {};
  }
  table->wanted.clear();
}

absl::StatusOr<std::vector<HalfBlock>> SearchedWindows::LoadBlocks(
    std::span<const uint32_t> windows, int memory_layer, Half half) {
  std::vector<HalfBlock> blocks(windows.size());
  std::vector<absl::Status> errors(static_cast<size_t>(device_->threads().n_threads()));
  device_->threads().ParallelFor(
      static_cast<int64_t>(windows.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const LiveWindow& window = window_at(windows[i]);
          const storage::WindowHold* hold = generation_->hold.get();
          auto block = half == Half::kKeys ? cache().Keys(window.slot_begin, memory_layer, hold)
                       : half == Half::kValues
                           ? cache().Values(window.slot_begin, memory_layer, hold)
                           : cache().MappedValues(window.slot_begin, memory_layer, hold);
          if (!block.ok()) {
            // A window that can be searched has its blocks.
            const absl::Status status =
                absl::IsNotFound(block.status())
                    ? absl::DataLossError(StrCat("missing: ", block.status().message()))
                    : block.status();
            errors[thread] = Annotate(
                status, StrCat("document ", generation_->documents[window.document].id, " (",
                               generation_->documents[window.document].source(), ")"));
            return;
          }
          blocks[i] = *std::move(block);
        }
      });
  for (const absl::Status& error : errors) RETURN_IF_ERROR(error);
  return blocks;
}

absl::StatusOr<LoadedRuns> SearchedWindows::LoadRuns(std::span<const uint32_t> windows,
                                                     int memory_layer) {
  LoadedRuns loaded;
  ASSIGN_OR_RETURN(loaded.blocks, LoadBlocks(windows, memory_layer, Half::kKeys));
  loaded.runs.resize(static_cast<size_t>(n_kv_heads_));
  for (size_t i = 0; i < windows.size(); ++i) {
    const LiveWindow& window = window_at(windows[i]);
    for (int64_t head = 0; head < n_kv_heads_; ++head) {
      ForEachOther(window.sinks, window.n_tokens, [&](uint32_t begin, uint32_t end) {
        loaded.runs[head].push_back(
            {loaded.blocks[i].data() + (head * window.n_tokens + begin) * head_dim_, end - begin,
             static_cast<int64_t>(window.slot_begin + begin)});
      });
    }
  }
  return loaded;
}

LoadedRuns SearchedWindows::SessionRuns(int memory_layer) const {
  LoadedRuns session;
  session.runs.resize(static_cast<size_t>(n_kv_heads_));
  for (const SessionWindow& window : session_) {
    for (int64_t head = 0; head < n_kv_heads_; ++head) {
      session.runs[head].push_back(
          {window.blocks[memory_layer].keys.data() + head * window.n_tokens * head_dim_,
           window.n_tokens, window.first_slot});
    }
  }
  return session;
}

absl::Status SearchedWindows::ForEachRuns(
    int memory_layer, bool all_windows, absl::FunctionRef<absl::Status(const LoadedRuns&)> visit) {
  if (!session_.empty()) RETURN_IF_ERROR(visit(SessionRuns(memory_layer)));
  const std::vector<uint32_t>& windows = all_windows ? windows_ : scanned_;
  if (keep_runs_ && windows.size() == scanned_.size()) {
    if (!runs_loaded_[memory_layer]) {
      ASSIGN_OR_RETURN(kept_runs_[memory_layer], LoadRuns(scanned_, memory_layer));
      runs_loaded_[memory_layer] = true;
    }
    return visit(kept_runs_[memory_layer]);
  }
  // Too much to hold: portions of a quarter of the cache, read again for each call.
  const uint64_t portion_bytes = cache().capacity_bytes() / 4;
  for (size_t begin = 0; begin < windows.size();) {
    RETURN_IF_ERROR(progress_.CheckCancelled());
    size_t end = begin;
    uint64_t bytes = 0;
    while (end < windows.size() && (end == begin || bytes < portion_bytes)) {
      bytes +=
          window_at(windows[end++]).n_tokens * EntryBytes(entry_type_) * n_kv_heads_ * head_dim_;
    }
    ASSIGN_OR_RETURN(const LoadedRuns loaded,
                     LoadRuns(std::span(windows).subspan(begin, end - begin), memory_layer));
    RETURN_IF_ERROR(visit(loaded));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status SearchedWindows::ForEachSelectable(
    int memory_layer, absl::FunctionRef<absl::Status(const SelectableTokens&)> visit) {
  for (const SessionWindow& window : session_) {
    const storage::Block& block = window.blocks[memory_layer];
    RETURN_IF_ERROR(
        visit({block.keys.data(), block.values.data(), window.n_tokens, 0, window.n_tokens}));
  }
  for (size_t begin = 0; begin < windows_.size(); begin += kWindowsAtOnce) {
    RETURN_IF_ERROR(progress_.CheckCancelled());
    const size_t n = std::min(kWindowsAtOnce, windows_.size() - begin);
    const std::span<const uint32_t> portion(windows_.data() + begin, n);
    ASSIGN_OR_RETURN(const auto key_blocks, LoadBlocks(portion, memory_layer, Half::kKeys));
    ASSIGN_OR_RETURN(const auto value_blocks, LoadBlocks(portion, memory_layer, Half::kValues));
    for (size_t i = 0; i < n; ++i) {
      const LiveWindow& window = window_at(portion[i]);
      absl::Status status;
      ForEachOther(window.sinks, window.n_tokens, [&](uint32_t first, uint32_t end) {
        if (!status.ok()) return;
        status = visit({key_blocks[i].data(), value_blocks[i].data(), window.n_tokens, first, end});
      });
      RETURN_IF_ERROR(status);
    }
  }
  return absl::OkStatus();
}

}  // namespace fovea::memory
