// A row of a log that is written by ops which are recorded once (compute/device.h): the next free
// row is counted in the device's memory.
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"

namespace fovea::compute {

struct AppendRowArgs {
  struct Piece {
    const void* data = nullptr;  // in the device's memory, aligned to 4 bytes
    int64_t size_bytes = 0;      // a multiple of 4
  };
  std::span<const Piece> pieces;  // of the row, one after another; 1 … kMaxRowPieces
  void* rows = nullptr;           // [n_rows, their size_bytes together]
  int64_t n_rows = 0;             // beyond them nothing is written
  int32_t* next_row = nullptr;    // in the device's memory
  bool advances = false;          // then *next_row += 1
};
inline constexpr int kMaxRowPieces = 4;
// InvalidArgument for what does not fit the comments.
absl::Status AppendRow(Device& device, const AppendRowArgs& args);

}  // namespace fovea::compute
