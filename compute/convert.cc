#include "compute/convert.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

absl::Status ConvertOnCpu(cpu::CpuDevice& device, const ConvertArgs& args) {
  if (args.tokens.empty()) return cpu::Convert(device, args);
  for (size_t i = 0; i < args.tokens.size(); ++i) {
    RETURN_IF_ERROR(cpu::Convert(device, {.from = args.from.Rows(args.tokens[i], 1),
                                          .factors = args.factors,
                                          .to = args.to.Rows(static_cast<int64_t>(i), 1)}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Convert(Device& device, const ConvertArgs& args) {
  constexpr std::string_view kOp = "Convert";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "from", args.from, kFloat32OrBFloat16,
                                {kAnySize, kAnySize, kAnySize}, Layout::kDenseRows));
  const int64_t n_tokens =
      args.tokens.empty() ? args.from.dim(0) : static_cast<int64_t>(args.tokens.size());
  RETURN_IF_ERROR(CheckArgument(device, kOp, "to", args.to, kFloat32OrBFloat16,
                                {n_tokens, args.from.dim(1), args.from.dim(2)},
                                Layout::kDenseRows));
  for (const int64_t token : args.tokens) {
    if (token >= 0 && token < args.from.dim(0)) continue;
    return absl::InvalidArgumentError(
        StrCat(kOp, ": token ", token, " of from, which has ", args.from.dim(0)));
  }
  if (!args.factors.is_none()) {
    RETURN_IF_ERROR(
        CheckArgument(device, kOp, "factors", args.factors, kFloat32, {args.from.dim(1)}));
  }
  if (args.to.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return ConvertOnCpu(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::Convert(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
