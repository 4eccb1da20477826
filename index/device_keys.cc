#include "index/device_keys.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace fovea::index {
namespace {

// Of keys that are on their way to the device.
constexpr size_t kStagingBytes = size_t{32} << 20;

// Bytes that lie together, and where they go.
struct Piece {
  const std::byte* from;
  size_t size_bytes;  // kStagingBytes at most
  size_t to;
};

// Thousands of small ones (a window's of a head) as a few large copies of pinned memory.
absl::Status CopyPieces(compute::Device& device, const std::vector<Piece>& pieces, std::byte* to) {
  size_t n_bytes = 0;
  for (const Piece& piece : pieces) n_bytes += piece.size_bytes;
  ASSIGN_OR_RETURN(const compute::Buffer staging,
                   device.AllocatePinned(std::min(n_bytes, kStagingBytes)));
  for (size_t begin = 0; begin < pieces.size();) {
    size_t end = begin;
    size_t size_bytes = 0;
    while (end < pieces.size() && size_bytes + pieces[end].size_bytes <= kStagingBytes) {
      size_bytes += pieces[end++].size_bytes;
    }
    device.threads().ParallelFor(
        static_cast<int64_t>(end - begin), 1, [&](int64_t first, int64_t last, int) {
          for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
            const Piece& piece = pieces[begin + i];
            std::memcpy(staging.data<std::byte>() + (piece.to - pieces[begin].to), piece.from,
                        piece.size_bytes);
          }
        });
    RETURN_IF_ERROR(device.CopyFromHost(staging.data<void>(), size_bytes, to + pieces[begin].to));
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<DeviceKeys>> DeviceKeys::Copy(compute::Device& device,
                                                           const std::vector<HeadKeys>& keys,
                                                           int64_t head_dim) {
  if (device.is_host_memory() || keys.empty()) return std::nullopt;
  int64_t n_keys = 0;
  EntryType type = EntryType::kBFloat16;
  for (const compute::KeyRun& run : keys[0]) {
    n_keys += run.n_keys;
    if (run.n_keys > 0) type = run.keys.type();
  }
  const auto key_bytes = static_cast<size_t>(head_dim) * EntryBytes(type);
  const auto n_heads = static_cast<int64_t>(keys.size());
  if (n_keys == 0) return std::nullopt;
  absl::StatusOr<compute::Buffer> buffer =
      device.Allocate(static_cast<size_t>(n_heads * n_keys) * key_bytes);
  if (absl::IsResourceExhausted(buffer.status())) return std::nullopt;
  RETURN_IF_ERROR(buffer.status());
  std::vector<Piece> pieces;
  size_t n_bytes = 0;
  for (const HeadKeys& head : keys) {
    for (const compute::KeyRun& run : head) {
      if (run.n_keys > 0 && run.keys.type() != type) {
        return absl::InvalidArgumentError(StrCat("keys of ", EntryTypeName(run.keys.type()),
                                                 " and of ", EntryTypeName(type),
                                                 ", want one type"));
      }
      const auto* const from = static_cast<const std::byte*>(run.keys.address());
      const size_t run_bytes = static_cast<size_t>(run.n_keys) * key_bytes;
      for (size_t at = 0; at < run_bytes; at += kStagingBytes) {
        const size_t size_bytes = std::min(kStagingBytes, run_bytes - at);
        pieces.push_back({from + at, size_bytes, n_bytes});
        n_bytes += size_bytes;
      }
    }
  }
  RETURN_IF_ERROR(CopyPieces(device, pieces, buffer->data<std::byte>()));
  const compute::ConstView view(
      type == EntryType::kBFloat16 ? compute::DType::kBF16 : compute::DType::kF32,
      buffer->data<void>(), {n_heads, n_keys, head_dim});
  return DeviceKeys(*std::move(buffer), view);
}

}  // namespace fovea::index
