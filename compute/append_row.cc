#include "compute/append_row.h"

#include <cstring>

#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

void OnHost(const AppendRowArgs& args, int64_t row_bytes) {
  const int32_t row = *args.next_row;
  if (row < 0 || row >= args.n_rows) return;
  auto* to = static_cast<std::byte*>(args.rows) + row * row_bytes;
  for (const AppendRowArgs::Piece& piece : args.pieces) {
    std::memcpy(to, piece.data, static_cast<size_t>(piece.size_bytes));
    to += piece.size_bytes;
  }
  if (args.advances) *args.next_row = row + 1;
}

}  // namespace

absl::Status AppendRow(Device& device, const AppendRowArgs& args) {
  bool fits = !args.pieces.empty() && args.pieces.size() <= static_cast<size_t>(kMaxRowPieces) &&
              device.MayOwn(args.rows) && device.MayOwn(args.next_row);
  int64_t row_bytes = 0;
  for (const AppendRowArgs::Piece& piece : args.pieces) {
    fits = fits && device.MayOwn(piece.data) && piece.size_bytes >= 0 &&
           piece.size_bytes % 4 == 0 && reinterpret_cast<uintptr_t>(piece.data) % 4 == 0;
    row_bytes += piece.size_bytes;
  }
  if (!fits) {
    return absl::InvalidArgumentError(
        StrCat("AppendRow: ", args.pieces.size(), " pieces of ", row_bytes, " bytes, want 1 … ",
               kMaxRowPieces, " of whole, aligned words, all in memory of the device"));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      OnHost(args, row_bytes);
      return absl::OkStatus();
    case DeviceKind::kCuda:
      return cuda::AppendRow(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
