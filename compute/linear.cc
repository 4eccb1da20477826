#include "compute/linear.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {

absl::StatusOr<std::unique_ptr<Linear>> Linear::Create(Device& device,
                                                       const LinearWeights& weights) {
  const std::string& name = weights.name;
  RETURN_IF_ERROR(
      CheckArgument(device, name, "weight", weights.weight, kAnyType, {kAnySize, kAnySize}));
  const int64_t out_features = weights.weight.dim(0);
  const int64_t in_features = weights.weight.dim(1);
  if (out_features <= 0 || in_features <= 0) {
    return absl::InvalidArgumentError(
        StrCat(name, ": shape ", weights.weight.ShapeText(), ", want positive sizes"));
  }
  if (absl::StatusOr<size_t> row_bytes = RowBytes(weights.weight.dtype(), in_features);
      !row_bytes.ok()) {
    return Annotate(row_bytes.status(), name);
  }
  if (!weights.bias.is_none()) {
    RETURN_IF_ERROR(CheckArgument(device, name, "bias", weights.bias, kFloat32, {out_features}));
  }
  if (weights.lora_a.is_none() != weights.lora_b.is_none()) {
    return absl::InvalidArgumentError(StrCat(name, ": one half of a LoRA without the other"));
  }
  if (!weights.lora_a.is_none()) {
    RETURN_IF_ERROR(
        CheckArgument(device, name, "lora_a", weights.lora_a, kFloat32, {kAnySize, in_features}));
    const int64_t rank = weights.lora_a.dim(0);
    if (rank < 1) {
      return absl::InvalidArgumentError(StrCat(name, ": LoRA of rank ", rank, ", want at least 1"));
    }
    RETURN_IF_ERROR(
        CheckArgument(device, name, "lora_b", weights.lora_b, kFloat32, {out_features, rank}));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::CreateLinear(cpu::AsCpu(device), weights);
    case DeviceKind::kCuda:
      return cuda::CreateLinear(device, weights);
  }
  return absl::InternalError("unknown device kind");
}

absl::Status Linear::Forward(Device& device, const ConstView& x, bool add_to_out,
                             const View& out) const {
  RETURN_IF_ERROR(CheckArgument(device, name_, "x", x, kFloat32, {kAnySize, in_features_}));
  RETURN_IF_ERROR(CheckArgument(device, name_, "out", out, kFloat32, {x.dim(0), out_features_}));
  if (x.dim(0) == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  return DoForward(device, x, add_to_out, out);
}

void Linear::PrepareSteps(Device& device) const {
  const DeviceScope scope(device);
  DoPrepareSteps(device);
}

absl::Status Linear::ForwardTogether(Device& device, std::span<const Output> outputs,
                                     const ConstView& x) {
  if (outputs.empty() || outputs.size() > static_cast<size_t>(kMaxTogether)) {
    return absl::InvalidArgumentError(
        StrCat("Linear: ", outputs.size(), " outputs together, want 1 … ", kMaxTogether));
  }
  for (const Output& output : outputs) {
    const Linear& linear = *output.linear;
    RETURN_IF_ERROR(
        CheckArgument(device, linear.name_, "x", x, kFloat32, {kAnySize, linear.in_features_}));
    RETURN_IF_ERROR(CheckArgument(device, linear.name_, "out", output.out, kFloat32,
                                  {x.dim(0), linear.out_features_}));
  }
  if (x.dim(0) == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::ForwardTogether(cpu::AsCpu(device), outputs, x);
    case DeviceKind::kCuda:
      return cuda::ForwardTogether(device, outputs, x);
  }
  return absl::InternalError("unknown device kind");
}

}  // namespace fovea::compute
