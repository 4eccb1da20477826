#include "compute/cpu/choose_precision.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "compute/cpu/cpu_device.h"
#include "compute/cpu/int8_gemm.h"
#include "compute/linear.h"

namespace fovea::compute::cpu {
namespace {

// A projection of a small model; a millisecond or two in float32.
constexpr int64_t kFeatures = 576;
constexpr int64_t kRows = 192;
// The fastest of several runs is the one that nothing interrupted.
constexpr int kRuns = 3;

// The fastest run of one product in seconds; infinite where it cannot be computed.
double MeasureSeconds(Precision precision) {
  using Clock = std::chrono::steady_clock;
  constexpr double kFailed = std::numeric_limits<double>::infinity();
  CpuDevice device(1);
  device.set_precision(precision);
  std::vector<float> values(static_cast<size_t>(kFeatures * kFeatures));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251) - 125.0f;
  std::vector<float> out(static_cast<size_t>(kRows * kFeatures));
  const auto linear = Linear::Create(
      device, {.name = "measured", .weight = {values.data(), {kFeatures, kFeatures}}});
  if (!linear.ok()) return kFailed;
  double best = kFailed;
  for (int run = 0; run <= kRuns; ++run) {  // the first one packs the weights
    const Clock::time_point start = Clock::now();
    if (!(*linear)
             ->Forward(device, {values.data(), {kRows, kFeatures}}, false,
                       {out.data(), {kRows, kFeatures}})
             .ok())
      return kFailed;
    if (run == 0) continue;
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace

Precision FasterPrecision() {
  static const Precision faster = [] {
    if (!HasInt8Kernel()) return Precision::kFloat32;
    return MeasureSeconds(Precision::kInt8) < MeasureSeconds(Precision::kFloat32)
               ? Precision::kInt8
               : Precision::kFloat32;
  }();
  return faster;
}

}  // namespace fovea::compute::cpu
