#include "compute/convert.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status Convert(Device& device, const ConvertArgs& args) {
  constexpr std::string_view kOp = "Convert";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "from", args.from, kFloat32OrBFloat16,
                                {kAnySize, kAnySize, kAnySize}, Layout::kDenseRows));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "to", args.to, kFloat32OrBFloat16,
                                {args.from.dim(0), args.from.dim(1), args.from.dim(2)},
                                Layout::kDenseRows));
  if (!args.factors.is_none()) {
    RETURN_IF_ERROR(
        CheckArgument(device, kOp, "factors", args.factors, kFloat32, {args.from.dim(1)}));
  }
  if (args.from.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::Convert(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::Convert(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
