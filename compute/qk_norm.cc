#include "compute/qk_norm.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

// A row a head.
absl::Status NormHeads(cpu::CpuDevice& device, const View& heads, const ConstView& weight,
                       float eps) {
  const View rows(heads.As<float>(), {heads.dim(0) * heads.dim(1), heads.dim(2)});
  return cpu::RmsNorm(device, {.x = rows, .weight = weight, .out = rows, .eps = eps});
}

}  // namespace

absl::Status QkNorm(Device& device, const QkNormArgs& args) {
  constexpr std::string_view kOp = "QkNorm";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}));
  const int64_t head_dim = args.queries.dim(2);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "keys", args.keys, kFloat32,
                                {args.queries.dim(0), kAnySize, head_dim}));
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "query_weight", args.query_weight, kFloat32, {head_dim}));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "key_weight", args.key_weight, kFloat32, {head_dim}));
  if (args.queries.size() + args.keys.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu: {
      cpu::CpuDevice& cpu = cpu::AsCpu(device);
      RETURN_IF_ERROR(NormHeads(cpu, args.queries, args.query_weight, args.eps));
      return NormHeads(cpu, args.keys, args.key_weight, args.eps);
    }
    case DeviceKind::kCuda:
      return cuda::QkNorm(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
