#include "compute/linear.h"

#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::StatusOr<std::unique_ptr<Linear>> Linear::Create(Device& device,
                                                       const LinearWeights& weights) {
  if (weights.out_features <= 0 || weights.in_features <= 0) {
    return absl::InvalidArgumentError(StrCat(weights.name, ": shape [", weights.out_features, ",",
                                             weights.in_features, "], want positive sizes"));
  }
  if (absl::StatusOr<size_t> row_bytes = RowBytes(weights.dtype, weights.in_features);
      !row_bytes.ok()) {
    return Annotate(row_bytes.status(), weights.name);
  }
  FOVEA_CHECK(weights.weight != nullptr);
  FOVEA_CHECK((weights.lora_a == nullptr) == (weights.lora_b == nullptr));
  if (weights.lora_a != nullptr && weights.lora_rank <= 0) {
    return absl::InvalidArgumentError(
        StrCat(weights.name, ": LoRA of rank ", weights.lora_rank, ", want at least 1"));
  }
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::CreateLinear(cpu::AsCpu(device), weights);
    case DeviceKind::kCuda:
      return Unavailable("Linear");
  }
  return absl::InternalError("unknown device kind");
}

}  // namespace fovea::compute
