#include "compute/cuda/cuda_device.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/stored_rows.h"

namespace fovea::compute::cuda {

absl::Status Embedding(Device& device, const EmbeddingArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  ASSIGN_OR_RETURN(const size_t row_bytes, RowBytes(args.table.dtype(), args.table.dim(1)));
  StoredRowsArgs rows{.dtype = args.table.dtype(),
                      .rows = args.table.As<std::byte>(),
                      .row_bytes = static_cast<int64_t>(row_bytes),
                      .n_values = args.table.dim(1),
                      .ids = args.device_id,
                      .n_rows = args.out.dim(0),
                      .out = args.out.data()};
  if (args.device_id == nullptr) {
    ASSIGN_OR_RETURN(std::byte* const ids, cuda.Scratch(args.ids.size_bytes()));
    RETURN_IF_ERROR(device.CopyFromHost(args.ids.data(), args.ids.size_bytes(), ids));
    rows.ids = reinterpret_cast<const int32_t*>(ids);
  }
  LaunchStoredRows(rows, cuda.stream());
  return LaunchStatus("Embedding");
}

}  // namespace fovea::compute::cuda
