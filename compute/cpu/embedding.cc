#include <algorithm>

#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {

absl::Status Embedding(CpuDevice& device, const EmbeddingArgs& args) {
  ASSIGN_OR_RETURN(const size_t row_bytes, RowBytes(args.dtype, args.hidden_size));
  device.threads().ParallelFor(
      static_cast<int64_t>(args.ids.size()), 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          const auto id = static_cast<size_t>(args.ids[static_cast<size_t>(t)]);
          DequantizeRow(args.dtype, args.table + id * row_bytes, args.hidden_size,
                        args.out + t * args.hidden_size);
        }
      });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
