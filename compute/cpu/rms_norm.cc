#include "compute/cpu/grain.h"
#include "compute/cpu/ops.h"
#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/rms_norm.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include <cmath>
#include <vector>

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Two chains of sums hide the latency of the additions; their order is fixed, so results do not
// depend on how rows are spread over threads.
void NormRow(const float* x, const float* weight, float* out, int64_t n, float eps) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto v0 = hn::LoadU(d, x + i);
    const auto v1 = hn::LoadU(d, x + i + lanes);
    sum0 = hn::MulAdd(v0, v0, sum0);
    sum1 = hn::MulAdd(v1, v1, sum1);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < n; ++i) sum += x[i] * x[i];
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  const auto factors = hn::Set(d, factor);
  for (i = 0; i + lanes <= n; i += lanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), factors);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(NormRow);

absl::Status RmsNorm(CpuDevice& device, const RmsNormArgs& args) {
  const int64_t hidden_size = args.x.dim(1);
  const auto* const x = args.x.As<float>();
  const auto* const weight = args.weight.As<float>();
  if (args.out.dtype() == DType::kBF16) {
    device.threads().ParallelFor(
        args.x.dim(0), ElementwiseGrain(hidden_size), [&](int64_t begin, int64_t end, int) {
          std::vector<float> row(static_cast<size_t>(hidden_size));
          for (int64_t t = begin; t < end; ++t) {
            HWY_DYNAMIC_DISPATCH(NormRow)
            (x + t * hidden_size, weight, row.data(), hidden_size, args.eps);
            FloatToBFloat16(row.data(), args.out.As<BFloat16>() + t * hidden_size, row.size());
          }
        });
    return absl::OkStatus();
  }
  auto* const out = args.out.As<float>();
  device.threads().ParallelFor(
      args.x.dim(0), ElementwiseGrain(hidden_size), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          HWY_DYNAMIC_DISPATCH(NormRow)
          (x + t * hidden_size, weight, out + t * hidden_size, hidden_size, args.eps);
        }
      });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
