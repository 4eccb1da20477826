#include "compute/index_queries.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::Status IndexQueries(Device& device, const IndexQueriesArgs& args) {
  constexpr std::string_view kOp = "IndexQueries";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}));
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "out", args.out, kFloat32, {kAnySize, kAnySize, kAnySize}));
  const int64_t n_kv_heads = args.out.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  if (n_kv_heads < 1 || n_heads % n_kv_heads != 0 ||
      args.out.dim(1) != args.queries.dim(0) * (n_heads / n_kv_heads) ||
      args.out.dim(2) < args.queries.dim(2)) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": queries ", args.queries.ShapeText(), " and out ", args.out.ShapeText(),
               ": want [n_kv_heads, n_queries · group, at least head_dim]"));
  }
  if (args.first_axis != 0 &&
      (args.first_axis < args.queries.dim(2) || args.first_axis + n_kv_heads > args.out.dim(2))) {
    return absl::InvalidArgumentError(StrCat(kOp, ": first axis ", args.first_axis, ", want ",
                                             args.queries.dim(2), " … ",
                                             args.out.dim(2) - n_kv_heads));
  }
  if (args.radii.data() != nullptr) {
    RETURN_IF_ERROR(CheckArgument(device, kOp, "radii", args.radii, kFloat32, {n_kv_heads}));
  }
  if (args.queries.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::IndexQueries(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::IndexQueries(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
