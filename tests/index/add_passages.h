// Passages into a text index, each as a window of its own.
#pragma once

#include <span>
#include <vector>

#include "index/text_index.h"

namespace fovea::index {

inline absl::Status AddPassages(TextIndex& index, std::span<const PassageText> passages,
                                uint64_t next_slot) {
  std::vector<WindowText> windows;
  for (const PassageText& passage : passages) {
    windows.push_back({passage.slot_begin, passage.slot_begin + 1, {passage}});
  }
  return index.Add(windows, next_slot);
}

}  // namespace fovea::index
