#include "compute/linear.h"

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"
#include "compute/rms_norm.h"
#include "compute/silu_mul.h"

namespace fovea::compute {
namespace {

absl::Status CheckNorm(const Device& device, const ConstView& x, const Linear::Norm& norm) {
  constexpr std::string_view kOp = "Linear";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "norm.weight", norm.weight, kFloat32, {x.dim(1)}));
  return CheckArgument(device, kOp, "norm.normed", norm.normed, kFloat32, {x.dim(0), x.dim(1)});
}

}  // namespace

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

absl::Status Linear::CheckX(const Device& device, const ConstView& x) const {
  const bool may_be_rounded = x.rank() == 2 && TakesBFloat16(x.dim(0));
  return CheckArgument(device, name_, "x", x, may_be_rounded ? kFloat32OrBFloat16 : kFloat32,
                       {kAnySize, in_features_});
}

absl::Status Linear::Forward(Device& device, const ConstView& x, bool add_to_out,
                             const View& out) const {
  RETURN_IF_ERROR(CheckX(device, x));
  RETURN_IF_ERROR(CheckArgument(device, name_, "out", out, kFloat32, {x.dim(0), out_features_}));
  if (x.dim(0) == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  return DoForward(device, x, add_to_out, out);
}

void Linear::PrepareSteps(Device& device) const {
  const DeviceScope scope(device);
  DoPrepareSteps(device);
}

absl::Status Linear::CheckTogether(const Device& device, std::span<const Output> outputs,
                                   const ConstView& x) {
  if (outputs.empty() || outputs.size() > static_cast<size_t>(kMaxTogether)) {
    return absl::InvalidArgumentError(
        StrCat("Linear: ", outputs.size(), " outputs together, want 1 … ", kMaxTogether));
  }
  for (const Output& output : outputs) {
    const Linear& linear = *output.linear;
    RETURN_IF_ERROR(linear.CheckX(device, x));
    RETURN_IF_ERROR(CheckArgument(device, linear.name_, "out", output.out, kFloat32,
                                  {x.dim(0), linear.out_features_}));
  }
  return absl::OkStatus();
}

absl::Status Linear::ForwardTogether(Device& device, std::span<const Output> outputs,
                                     const ConstView& x) {
  RETURN_IF_ERROR(CheckTogether(device, outputs, x));
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

absl::Status Linear::ForwardNormed(Device& device, std::span<const Output> outputs,
                                   const ConstView& x, const Norm& norm) {
  RETURN_IF_ERROR(CheckTogether(device, outputs, x));
  RETURN_IF_ERROR(CheckNorm(device, x, norm));
  if (device.kind() == DeviceKind::kCuda && x.dim(0) > 0) {
    const DeviceScope scope(device);
    return cuda::ForwardNormed(device, outputs, x, norm);
  }
  RETURN_IF_ERROR(
      RmsNorm(device, {.x = x, .weight = norm.weight, .out = norm.normed, .eps = norm.eps}));
  return ForwardTogether(device, outputs, norm.normed);
}

absl::Status Linear::ForwardGated(Device& device, const Output& gate, const Output& up,
                                  const ConstView& x, const Norm& norm) {
  const Output outputs[] = {gate, up};
  RETURN_IF_ERROR(CheckTogether(device, outputs, x));
  if (gate.linear->out_features_ != up.linear->out_features_) {
    return absl::InvalidArgumentError(StrCat(gate.linear->name_, " has ",
                                             gate.linear->out_features_, " features, ",
                                             up.linear->name_, " has ", up.linear->out_features_));
  }
  RETURN_IF_ERROR(CheckNorm(device, x, norm));
  if (device.kind() == DeviceKind::kCuda && x.dim(0) > 0) {
    const DeviceScope scope(device);
    return cuda::ForwardGated(device, gate, up, x, norm);
  }
  RETURN_IF_ERROR(ForwardNormed(device, outputs, x, norm));
  return SiluMul(device, {.gate = gate.out, .up = up.out, .out = gate.out});
}

}  // namespace fovea::compute
