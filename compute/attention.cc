#include "compute/attention.h"

#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::Status Attention(Device& device, const AttentionArgs& args) {
  FOVEA_CHECK(args.n_queries >= 0 && args.n_keys >= 0 && args.head_dim > 0 && args.n_kv_heads > 0 &&
              args.n_heads > 0 && args.n_heads % args.n_kv_heads == 0);
  if (args.n_queries == 0) return absl::OkStatus();
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::Attention(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable("Attention");
  }
  return absl::OkStatus();
}

absl::Status MergePartials(Device& device, const MergePartialsArgs& args) {
  FOVEA_CHECK(args.n_rows >= 0 && args.head_dim > 0);
  if (args.n_rows == 0) return absl::OkStatus();
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::MergePartials(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable("MergePartials");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
