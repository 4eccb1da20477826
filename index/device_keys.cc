#include "index/device_keys.h"

#include <utility>

namespace fovea::index {

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
  std::byte* to = buffer->data<std::byte>();
  for (const HeadKeys& head : keys) {
    for (const compute::KeyRun& run : head) {
      if (run.n_keys > 0 && run.keys.type() != type) {
        return absl::InvalidArgumentError(StrCat("keys of ", EntryTypeName(run.keys.type()),
                                                 " and of ", EntryTypeName(type),
                                                 ", want one type"));
      }
      const size_t run_bytes = static_cast<size_t>(run.n_keys) * key_bytes;
      RETURN_IF_ERROR(device.CopyFromHost(run.keys.address(), run_bytes, to));
      to += run_bytes;
    }
  }
  const compute::ConstView view(
      type == EntryType::kBFloat16 ? compute::DType::kBF16 : compute::DType::kF32,
      buffer->data<void>(), {n_heads, n_keys, head_dim});
  return DeviceKeys(*std::move(buffer), view);
}

}  // namespace fovea::index
