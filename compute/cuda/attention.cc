#include "compute/cuda/attention.h"

#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {

AttentionInput InputOf(const AttentionArgs& args) {
  return {.queries = args.queries.As<float>(),
          .keys = args.keys.data(),
          .values = args.values.data(),
          .key_token_stride = args.keys.stride(0),
          .key_head_stride = args.keys.stride(1),
          .value_token_stride = args.values.stride(0),
          .value_head_stride = args.values.stride(1),
          .n_keys = args.keys.dim(0),
          .n_queries = static_cast<int>(args.queries.dim(0)),
          .n_heads = static_cast<int>(args.queries.dim(1)),
          .n_kv_heads = static_cast<int>(args.keys.dim(1)),
          .head_dim = static_cast<int>(args.queries.dim(2)),
          .scale = args.scale,
          .causal = args.causal,
          .output = args.output.As<float>(),
          .lse = args.lse.As<float>()};
}

absl::Status Attention(Device& device, const AttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const AttentionInput in = InputOf(args);
  const bool in_bf16 = args.keys.dtype() == DType::kBF16;
  const int64_t n_rows = int64_t{in.n_queries} * (in.n_heads / in.n_kv_heads);
  // A few rows with few keys, too: a tile of queries would be empty for the most part.
  if (args.sequence_begins.empty() && n_rows <= kMaxSplitRows && in.head_dim <= kMaxSplitHeadDim &&
      (in.n_queries <= 4 || in.n_keys > 2048)) {
    return AttendInSplits(cuda, in, in_bf16);
  }
  if (device.precision() == Precision::kBFloat16 && in.head_dim <= kMaxTensorCoreHeadDim) {
    return AttendOnTensorCores(cuda, in, args.sequence_begins, in_bf16);
  }
  return AttendInTiles(cuda, in, args.sequence_begins, in_bf16);
}

}  // namespace fovea::compute::cuda
