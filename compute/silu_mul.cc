#include "compute/silu_mul.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status SiluMul(Device& device, const SiluMulArgs& args) {
  constexpr std::string_view kOp = "SiluMul";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "gate", args.gate, kFloat32, {kAnySize, kAnySize}));
  const int64_t n_tokens = args.gate.dim(0);
  const int64_t n = args.gate.dim(1);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "up", args.up, kFloat32, {n_tokens, n}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "out", args.out, kFloat32OrBFloat16, {n_tokens, n}));
  if (args.gate.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::SiluMul(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::SiluMul(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
