#include "compute/memory_attention.h"

#include "compute/check_memory_parts.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args) {
  constexpr std::string_view kOp = "MemoryAttention";
  RETURN_IF_ERROR(CheckMemoryQueries(device, kOp, args.queries, args.output, args.lse, args.top_k,
                                     args.positions != nullptr && args.scores != nullptr));
  RETURN_IF_ERROR(CheckNumMemoryParts(kOp, args.parts.size()));
  int64_t n_tokens = 0;
  for (const MemoryPart& part : args.parts) {
    RETURN_IF_ERROR(CheckMemoryPart(device, kOp, args.queries, args.parts[0], part,
                                    !args.output.is_none(), &n_tokens));
  }
  if (args.queries.dim(0) == 0) return absl::OkStatus();
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
