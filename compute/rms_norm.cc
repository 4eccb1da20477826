#include "compute/rms_norm.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status RmsNorm(Device& device, const RmsNormArgs& args) {
  constexpr std::string_view kOp = "RmsNorm";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "x", args.x, kFloat32, {kAnySize, kAnySize}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "weight", args.weight, kFloat32, {args.x.dim(1)}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "out", args.out, kFloat32OrBFloat16,
                                {args.x.dim(0), args.x.dim(1)}));
  if (args.x.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::RmsNorm(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::RmsNorm(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
