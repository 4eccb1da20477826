#include "compute/silu_mul.h"

#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::Status SiluMul(Device& device, const float* gate, const float* up, float* out, int64_t n) {
  FOVEA_CHECK(n >= 0);
  if (n == 0) return absl::OkStatus();
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::SiluMul(cpu::AsCpu(device), gate, up, out, n);
    case DeviceKind::kCuda:
      return Unavailable("SiluMul");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
