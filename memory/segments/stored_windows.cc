#include "memory/segments/stored_windows.h"

#include <algorithm>

namespace fovea::memory {

absl::StatusOr<std::vector<StoredWindow>> FindStoredWindows(const storage::DocumentStore& store,
                                                            storage::Slot slot_begin,
                                                            storage::Slot slot_end) {
  std::vector<StoredWindow> windows;
  RETURN_IF_ERROR(store.ForEachLink([&](const storage::WindowLink& link) {
    if (link.slot_begin >= slot_begin && link.slot_begin < slot_end) {
      windows.push_back({.slot_begin = link.slot_begin, .n_tokens = link.n_tokens});
    }
    return absl::OkStatus();
  }));
  std::sort(windows.begin(), windows.end(), [](const StoredWindow& a, const StoredWindow& b) {
    return a.slot_begin != b.slot_begin ? a.slot_begin < b.slot_begin : a.n_tokens < b.n_tokens;
  });
  windows.erase(std::unique(windows.begin(), windows.end(),
                            [](const StoredWindow& a, const StoredWindow& b) {
                              return a.slot_begin == b.slot_begin && a.n_tokens == b.n_tokens;
                            }),
                windows.end());
  for (size_t i = 0; i < windows.size(); ++i) {
    const storage::Slot limit = i + 1 < windows.size() ? windows[i + 1].slot_begin : slot_end;
    if (windows[i].n_tokens == 0 || windows[i].n_tokens > limit - windows[i].slot_begin) {
      return absl::DataLossError(
          StrCat("window at slot ", windows[i].slot_begin, ": its link says ", windows[i].n_tokens,
                 " tokens, but the next window or the end of the range is at slot ", limit,
                 ": run `fovea verify`"));
    }
  }
  return windows;
}

storage::Slot LastSlotBetween(const std::vector<StoredWindow>& windows, storage::Slot limit) {
  // The only window that can span `limit` is the last one that begins before it.
  const auto next = std::lower_bound(
      windows.begin(), windows.end(), limit,
      [](const StoredWindow& window, storage::Slot slot) { return window.slot_begin < slot; });
  if (next == windows.begin()) return limit;
  const StoredWindow& window = *std::prev(next);
  return window.slot_begin + window.n_tokens > limit ? window.slot_begin : limit;
}

uint64_t CountTokens(const std::vector<StoredWindow>& windows) {
  uint64_t n_tokens = 0;
  for (const StoredWindow& window : windows) n_tokens += window.n_tokens;
  return n_tokens;
}

}  // namespace fovea::memory
