#include "compute/rope.h"

#include <cmath>

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/cuda/ops.h"

namespace fovea::compute {
namespace {

constexpr float kPi = 3.14159265358979323846f;

// Llama 3.1's rule: wavelengths beyond what the model was first trained on are stretched by the
// factor, short ones are kept, and those between are blended.
float Llama3Frequency(float frequency, const RopeScaling& scaling) {
  const float original = static_cast<float>(scaling.original_max_position_embeddings);
  const float wavelength = 2.0f * kPi / frequency;
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.llama3_factor;
  const float smooth = (original / wavelength - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - smooth) * (frequency / scaling.llama3_factor) + smooth * frequency;
}

// One sequence after another.
absl::Status RotateOnCpu(cpu::CpuDevice& device, const RopeArgs& args) {
  if (args.sequence_begins.empty()) return cpu::Rope(device, args);
  for (size_t s = 0; s + 1 < args.sequence_begins.size(); ++s) {
    const int64_t begin = args.sequence_begins[s];
    const int64_t n = args.sequence_begins[s + 1] - begin;
    if (n == 0) continue;
    RETURN_IF_ERROR(cpu::Rope(device, {.x = args.x.Rows(begin, n),
                                       .inverse_frequencies = args.inverse_frequencies,
                                       .first_position = args.first_position}));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<float> RopeInverseFrequencies(int64_t head_dim, float theta,
                                          const RopeScaling& scaling) {
  FOVEA_CHECK(head_dim > 0 && head_dim % 2 == 0);
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float frequency = 1.0f / std::pow(theta, exponent);
    if (scaling.llama3_factor != 1.0f) frequency = Llama3Frequency(frequency, scaling);
    if (scaling.linear_factor != 1.0f) frequency /= scaling.linear_factor;
    frequencies[i] = frequency;
  }
  return frequencies;
}

absl::Status Rope(Device& device, const RopeArgs& args) {
  constexpr std::string_view kOp = "Rope";
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "x", args.x, kFloat32, {kAnySize, kAnySize, kAnySize}));
  if (args.x.dim(2) % 2 != 0) {
    return absl::InvalidArgumentError(
        StrCat(kOp, ": x has the shape ", args.x.ShapeText(), ", want an even last dimension"));
  }
  RETURN_IF_ERROR(CheckArgument(device, kOp, "inverse_frequencies", args.inverse_frequencies,
                                kFloat32, {args.x.dim(2) / 2}));
  if (!args.sequence_begins.empty()) {
    RETURN_IF_ERROR(CheckSequences(kOp, args.sequence_begins, args.x.dim(0)));
  }
  if (args.x.size() == 0) return absl::OkStatus();
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return RotateOnCpu(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return cuda::Rope(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
