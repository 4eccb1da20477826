#include "compute/kept_attention.h"

#include "compute/check_argument.h"
#include "compute/check_memory_parts.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status KeptAttention(Device& device, const KeptAttentionArgs& args) {
  constexpr std::string_view kOp = "KeptAttention";
  const ConstView& output = args.output;
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "output", output, kFloat32, {kAnySize, kAnySize, kAnySize}));
  if (args.top_k < 1 || args.top_k > kMaxMemoryTopK) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": top_k ", args.top_k, ", want 1 … ", kMaxMemoryTopK));
  }
  RETURN_IF_ERROR(CheckNumMemoryParts(kOp, args.parts.size()));
  int64_t n_tokens = 0;
  bool has_all_values = true;
  for (const MemoryPart& part : args.parts) {
    RETURN_IF_ERROR(CheckMemoryPart(device, kOp, output, args.parts[0], part,
                                    /*wants_values=*/false, &n_tokens));
    has_all_values = has_all_values && !part.values.is_none();
  }
  if (!has_all_values || !args.gathered.is_none()) {
    RETURN_IF_ERROR(CheckArgument(device, kOp, "gathered values", args.gathered,
                                  OfType(args.parts[0].keys.dtype()),
                                  {output.dim(0) * output.dim(1), args.top_k, output.dim(2)}));
  }
  if (output.dim(0) == 0) return absl::OkStatus();
  for (const void* const kept :
       {static_cast<const void*>(args.positions), static_cast<const void*>(args.scores)}) {
    if (kept != nullptr && device.MayOwn(kept)) continue;
    return absl::InvalidArgumentError(
        StrCat(kOp, ": positions or scores of what was kept do not lie in the device's memory"));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::KeptAttention(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::KeptAttention(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
