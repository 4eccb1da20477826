#include "compute/arg_max.h"

#include <cmath>
#include <limits>

#include "compute/check_argument.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

int32_t OnHost(const float* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (x[i] > x[best] || (std::isnan(x[best]) && !std::isnan(x[i]))) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

absl::Status ArgMax(Device& device, const ArgMaxArgs& args) {
  constexpr std::string_view kOp = "ArgMax";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "x", args.x, kFloat32, {kAnySize}));
  const int64_t n = args.x.dim(0);
  if (n < 1 || n > std::numeric_limits<int32_t>::max() || !device.MayOwn(args.out)) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": of ", n, " numbers; want at least one, and memory of the device for it"));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      *args.out = OnHost(args.x.As<float>(), n);
      return absl::OkStatus();
    case DeviceKind::kCuda:
      return cuda::ArgMax(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
