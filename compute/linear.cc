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

absl::Status Linear::ForwardTogether(Device& device, std::span<const Output> outputs,
                                     const float* x, int64_t n_tokens) {
  FOVEA_CHECK(!outputs.empty() && outputs.size() <= static_cast<size_t>(kMaxTogether));
  for (const Output& output : outputs) {
    FOVEA_CHECK(output.linear->in_features() == outputs[0].linear->in_features());
  }
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::ForwardTogether(cpu::AsCpu(device), outputs, x, n_tokens);
    case DeviceKind::kCuda:
      return Unavailable("Linear");
  }
  return absl::InternalError("unknown device kind");
}

}  // namespace fovea::compute
