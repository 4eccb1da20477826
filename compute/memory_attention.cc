#include "compute/memory_attention.h"

#include <limits>

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args) {
  constexpr std::string_view kOp = "MemoryAttention";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "output", args.output, kFloat32, {n_queries, n_heads, head_dim}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "lse", args.lse, kFloat32, {n_queries, n_heads}));
  if (args.top_k < 1 || args.top_k > kMaxMemoryTopK) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": top_k ", args.top_k, ", want 1 … ", kMaxMemoryTopK));
  }
  if (args.parts.empty() || args.parts.size() > static_cast<size_t>(kMaxMemoryParts)) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": ", args.parts.size(), " parts, want 1 … ", kMaxMemoryParts));
  }
  const ConstView& first = args.parts[0].keys;
  int64_t n_tokens = 0;
  for (const MemoryPart& part : args.parts) {
    RETURN_IF_ERROR(
        CheckArgument(device, kOp, "keys", part.keys,
                      &part == args.parts.data() ? kFloat32OrBFloat16 : OfType(first.dtype()),
                      {kAnySize, kAnySize, head_dim}, Layout::kDenseRows));
    const int64_t n_kv_heads = part.keys.dim(0);
    if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0 || n_kv_heads != first.dim(0)) {
      return absl::InvalidArgumentError(StrCat(kOp, ": queries ", args.queries.ShapeText(),
                                               " and keys ", part.keys.ShapeText(),
                                               ": want a multiple of the keys' heads, and as many "
                                               "in each part"));
    }
    RETURN_IF_ERROR(CheckArgument(device, kOp, "values", part.values, OfType(first.dtype()),
                                  {n_kv_heads, part.keys.dim(1), head_dim}, Layout::kDenseRows));
    for (const ConstView& entries : {part.keys, part.values}) {
      if (entries.stride(1) == head_dim || entries.dim(1) <= 1) continue;
      return absl::InvalidArgumentError(StrCat(kOp, ": tokens of a head lie ", entries.stride(1),
                                               " elements apart, want ", head_dim));
    }
    n_tokens += part.keys.dim(1);
  }
  if (n_tokens > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": ", n_tokens, " tokens, want at most ", std::numeric_limits<int32_t>::max()));
  }
  if (n_queries == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::MemoryAttention(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::MemoryAttention(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
