#include <algorithm>

#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {

absl::Status Embedding(CpuDevice& device, const EmbeddingArgs& args) {
  const DType dtype = args.table.dtype();
  const int64_t hidden_size = args.table.dim(1);
  const auto* const table = args.table.As<std::byte>();
  auto* const out = args.out.As<float>();
  ASSIGN_OR_RETURN(const size_t row_bytes, RowBytes(dtype, hidden_size));
  if (args.device_id != nullptr) {
    DequantizeRow(dtype, table + static_cast<size_t>(*args.device_id) * row_bytes, hidden_size,
                  out);
    return absl::OkStatus();
  }
  device.threads().ParallelFor(
      static_cast<int64_t>(args.ids.size()), 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          const auto id = static_cast<size_t>(args.ids[static_cast<size_t>(t)]);
          DequantizeRow(dtype, table + id * row_bytes, hidden_size, out + t * hidden_size);
        }
      });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
