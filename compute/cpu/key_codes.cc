#include "compute/cpu/key_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/key_codes.cc"
#include "compute/cpu/simd_targets.h"
// After simd_targets.h.
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

#ifndef FOVEA_COMPUTE_CPU_KEY_CODES_ONCE
#define FOVEA_COMPUTE_CPU_KEY_CODES_ONCE
namespace fovea::compute::cpu {

// How a grid fits a key x: with c = code − middle, Σ c·x and Σ c².
struct GridFit {
  float product;
  float norm2;
};

}  // namespace fovea::compute::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// out = [padded_dim] ← the rotation of x = [head_dim].
void Rotate(const float* HWY_RESTRICT rotation, const float* HWY_RESTRICT x, int64_t head_dim,
            int64_t padded_dim, float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const auto n_lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 4 * n_lanes <= padded_dim; i += 4 * n_lanes) {
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
    for (int64_t k = 0; k < head_dim; ++k) {
      const auto value = hn::Set(d, x[k]);
      const float* row = rotation + k * padded_dim + i;
      sum0 = hn::MulAdd(hn::LoadU(d, row), value, sum0);
      sum1 = hn::MulAdd(hn::LoadU(d, row + n_lanes), value, sum1);
      sum2 = hn::MulAdd(hn::LoadU(d, row + 2 * n_lanes), value, sum2);
      sum3 = hn::MulAdd(hn::LoadU(d, row + 3 * n_lanes), value, sum3);
    }
    hn::StoreU(sum0, d, out + i);
    hn::StoreU(sum1, d, out + i + n_lanes);
    hn::StoreU(sum2, d, out + i + 2 * n_lanes);
    hn::StoreU(sum3, d, out + i + 3 * n_lanes);
  }
  for (; i < padded_dim; ++i) {
    float sum = 0.0f;
    for (int64_t k = 0; k < head_dim; ++k) sum += rotation[k * padded_dim + i] * x[k];
    out[i] = sum;
  }
}

GridFit FitGrid(const float* HWY_RESTRICT x, int64_t n, float inverse_step, float middle) {
  const hn::ScalableTag<float> d;
  const auto n_lanes = static_cast<int64_t>(hn::Lanes(d));
  auto product = hn::Zero(d);
  auto norm2 = hn::Zero(d);
  int64_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes) {
    const auto value = hn::LoadU(d, x + i);
    const auto code =
        hn::Min(hn::Max(hn::Round(hn::MulAdd(value, hn::Set(d, inverse_step), hn::Set(d, middle))),
                        hn::Zero(d)),
                hn::Set(d, 2.0f * middle));
    const auto centred = hn::Sub(code, hn::Set(d, middle));
    product = hn::MulAdd(centred, value, product);
    norm2 = hn::MulAdd(centred, centred, norm2);
  }
  GridFit fit{hn::GetLane(hn::SumOfLanes(d, product)), hn::GetLane(hn::SumOfLanes(d, norm2))};
  for (; i < n; ++i) {
    const float code =
        std::clamp(std::nearbyint(x[i] * inverse_step + middle), 0.0f, 2.0f * middle) - middle;
    fit.product += code * x[i];
    fit.norm2 += code * code;
  }
  return fit;
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(Rotate);
HWY_EXPORT(FitGrid);

void RotateForCodes(const KeyCoder& coder, const float* x, float* rotated) {
  HWY_DYNAMIC_DISPATCH(Rotate)
  (coder.rotation().data(), x, coder.head_dim(), coder.padded_dim(), rotated);
}

void EncodeCodeBlock(const KeyCoder& coder, const float* keys, int64_t n_keys, std::byte* codes,
                     BFloat16* factors) {
  const int bits = coder.bits();
  const int64_t padded_dim = coder.padded_dim();
  const float middle = static_cast<float>((1 << bits) - 1) / 2.0f;
  std::memset(codes, 0, static_cast<size_t>(coder.n_lines() * kCodeLineBytes));
  std::fill(factors, factors + kCodeBlockKeys, BFloat16(0.0f));
  std::vector<float> x(static_cast<size_t>(padded_dim));
  for (int64_t key = 0; key < n_keys; ++key) {
    RotateForCodes(coder, keys + key * coder.head_dim(), x.data());
    double norm2 = 0.0;
    float largest = 0.0f;
    for (const float value : x) {
      norm2 += static_cast<double>(value) * value;
      largest = std::max(largest, std::abs(value));
    }
    if (!(largest > 0.0f)) continue;  // the mean itself: every score is 0
    // The step whose grid points lie best in the key's direction, between those that suit flat and
    // peaked distributions (2 and 4 bits: about 1 and 1/3 of the standard deviation where they are
    // normal); 8 bits cover everything.
    const auto deviation = static_cast<float>(std::sqrt(norm2 / static_cast<double>(padded_dim)));
    constexpr float kSteps2[] = {0.75f, 0.85f, 0.95f, 1.05f, 1.15f, 1.3f};
    constexpr float kSteps4[] = {0.22f, 0.26f, 0.3f, 0.34f, 0.38f, 0.43f};
    const float whole = largest / middle;
    float best_step = whole;
    if (bits < 8) {
      float best = -1.0f;
      for (const float relative : bits == 2 ? kSteps2 : kSteps4) {
        const float step = std::min(relative * deviation, whole * 2.0f);
        const GridFit fit =
            HWY_DYNAMIC_DISPATCH(FitGrid)(x.data(), padded_dim, 1.0f / step, middle);
        const float cosine2 = fit.product * fit.product / std::max(fit.norm2, 1e-30f);
        if (cosine2 > best) {
          best = cosine2;
          best_step = step;
        }
      }
    }
    const float inverse_step = 1.0f / best_step;
    double product = 0.0;
    const int64_t per_line = 32 / bits;
    for (int64_t d = 0; d < padded_dim; ++d) {
      const float value = x[static_cast<size_t>(d)];
      const float code =
          std::clamp(std::nearbyint(value * inverse_step + middle), 0.0f, 2.0f * middle);
      product += static_cast<double>(value) * (code - middle);
      const int64_t in_line = d % per_line;
      std::byte& byte = codes[d / per_line * kCodeLineBytes + key * 4 + in_line % 4];
      byte |= static_cast<std::byte>(static_cast<unsigned>(code) << (in_line / 4 * bits));
    }
    factors[key] = BFloat16(static_cast<float>(product > 0.0 ? norm2 / product : 0.0));
  }
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
