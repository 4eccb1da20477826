// Storage-only 16-bit floats: bfloat16 (stored keys and values) and IEEE half (weights).
// Arithmetic is always done in float; these types convert, rounding to nearest even.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace fovea {

struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    // A NaN keeps its sign and becomes quiet: rounding could carry it into infinity.
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(BFloat16) == 2);

// Bits of an IEEE half → float, exactly.
float HalfToFloat(uint16_t half);
// float → bits of an IEEE half, to nearest even; overflow becomes infinity.
uint16_t FloatToHalf(float value);

// Element-wise over n values; vectorised by the compiler.
void BFloat16ToFloat(const BFloat16* in, float* out, size_t n);
void FloatToBFloat16(const float* in, BFloat16* out, size_t n);

}  // namespace fovea
