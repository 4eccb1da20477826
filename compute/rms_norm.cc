#include "compute/rms_norm.h"

#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::Status RmsNorm(Device& device, const RmsNormArgs& args) {
  FOVEA_CHECK(args.n_tokens >= 0 && args.hidden_size > 0);
  if (args.n_tokens == 0) return absl::OkStatus();
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::RmsNorm(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable("RmsNorm");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
