#include <algorithm>
#include <vector>

#include "compute/cpu/grain.h"
#include "compute/cpu/ops.h"
#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/silu_mul.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Gate(D d, V gate, V up) {
  const V one = hn::Set(d, 1.0f);
  // Exp is defined up to 104; at 88 the quotient is already zero for all that float32 can tell
  // beside a hidden state.
  const V exponent = hn::Min(hn::Neg(gate), hn::Set(d, 88.0f));
  return hn::Mul(hn::Div(gate, hn::Add(one, hn::Exp(d, exponent))), up);
}

void SiluMulRange(const float* gate, const float* up, float* out, int64_t n) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(Gate(d, hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, out + i);
  }
  if (i < n) {
    // The same arithmetic for the rest, so that a value does not depend on where it lies.
    HWY_ALIGN float buffer[2 * hn::MaxLanes(d)] = {};
    std::copy(gate + i, gate + n, buffer);
    std::copy(up + i, up + n, buffer + lanes);
    hn::Store(Gate(d, hn::Load(d, buffer), hn::Load(d, buffer + lanes)), d, buffer);
    std::copy(buffer, buffer + (n - i), out + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(SiluMulRange);

absl::Status SiluMul(CpuDevice& device, const SiluMulArgs& args) {
  const auto* const gate = args.gate.As<float>();
  const auto* const up = args.up.As<float>();
  if (args.out.dtype() == DType::kBF16) {
    device.threads().ParallelFor(
        args.gate.size(), kValuesPerRange, [&](int64_t begin, int64_t end, int) {
          std::vector<float> range(static_cast<size_t>(end - begin));
          HWY_DYNAMIC_DISPATCH(SiluMulRange)
          (gate + begin, up + begin, range.data(), end - begin);
          FloatToBFloat16(range.data(), args.out.As<BFloat16>() + begin, range.size());
        });
    return absl::OkStatus();
  }
  auto* const out = args.out.As<float>();
  device.threads().ParallelFor(
      args.gate.size(), kValuesPerRange, [&](int64_t begin, int64_t end, int) {
        HWY_DYNAMIC_DISPATCH(SiluMulRange)(gate + begin, up + begin, out + begin, end - begin);
      });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
