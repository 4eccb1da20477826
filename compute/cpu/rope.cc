#include "compute/cpu/grain.h"
#include "compute/cpu/ops.h"
#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/rope.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// x [n_heads, 2·half_dim] of one token; cos and sin [half_dim].
void RotateToken(float* x, int64_t n_heads, int64_t half_dim, const float* cos, const float* sin) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t h = 0; h < n_heads; ++h) {
    float* first = x + h * 2 * half_dim;
    float* second = first + half_dim;
    int64_t i = 0;
    for (; i + lanes <= half_dim; i += lanes) {
      const auto a = hn::LoadU(d, first + i);
      const auto b = hn::LoadU(d, second + i);
      const auto c = hn::LoadU(d, cos + i);
      const auto s = hn::LoadU(d, sin + i);
      hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, first + i);
      hn::StoreU(hn::MulAdd(b, c, hn::Mul(a, s)), d, second + i);
    }
    for (; i < half_dim; ++i) {
      const float a = first[i];
      const float b = second[i];
      first[i] = a * cos[i] - b * sin[i];
      second[i] = b * cos[i] + a * sin[i];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(RotateToken);

absl::Status Rope(CpuDevice& device, const RopeArgs& args) {
  const int64_t n_tokens = args.x.dim(0);
  const int64_t n_heads = args.x.dim(1);
  const int64_t half_dim = args.x.dim(2) / 2;
  auto* const x = args.x.As<float>();
  RopeTable& table = device.rope_table();
  table.Prepare(args.inverse_frequencies.As<float>(), half_dim, args.first_position, n_tokens);
  const int64_t row = n_heads * args.x.dim(2);
  device.threads().ParallelFor(n_tokens, ElementwiseGrain(row),
                               [&](int64_t begin, int64_t end, int) {
                                 for (int64_t t = begin; t < end; ++t) {
                                   HWY_DYNAMIC_DISPATCH(RotateToken)
                                   (x + t * row, n_heads, half_dim, table.cos(t), table.sin(t));
                                 }
                               });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
