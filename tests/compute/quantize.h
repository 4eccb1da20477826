// Floats → stored rows of every type, for tests: what the layouts in compute/dtype.h say, written
// down independently of the code under test.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/float16.h"
#include "compute/dtype.h"

namespace fovea::compute {

// The length of `values` is a multiple of 32 for block types.
inline std::vector<std::byte> Quantize(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes;
  const auto append = [&](const auto& value) {
    const auto* data = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), data, data + sizeof(value));
  };
  if (dtype == DType::kF32) {
    for (const float value : values) append(value);
    return bytes;
  }
  if (dtype == DType::kF16) {
    for (const float value : values) append(FloatToHalf(value));
    return bytes;
  }
  if (dtype == DType::kBF16) {
    for (const float value : values) append(BFloat16(value).bits);
    return bytes;
  }
  for (size_t first = 0; first + 32 <= values.size(); first += 32) {
    const float* block = values.data() + first;
    const float low = *std::min_element(block, block + 32);
    const float high = *std::max_element(block, block + 32);
    const float largest = std::max(std::abs(low), std::abs(high));
    const float scale = dtype == DType::kQ4_0   ? largest / 7.0f
                        : dtype == DType::kQ4_1 ? (high - low) / 15.0f
                                                : largest / 127.0f;
    const auto quantum = [&](int i, float offset, int smallest, int greatest) {
      const float q = scale > 0.0f ? std::round((block[i] - offset) / scale) : 0.0f;
      return std::clamp(static_cast<int>(q), smallest, greatest);
    };
    append(FloatToHalf(scale));
    if (dtype == DType::kQ8_0) {
      for (int i = 0; i < 32; ++i) append(static_cast<int8_t>(quantum(i, 0.0f, -127, 127)));
      continue;
    }
    if (dtype == DType::kQ4_1) append(FloatToHalf(low));
    for (int i = 0; i < 16; ++i) {
      const auto nibble = [&](int j) {
        return dtype == DType::kQ4_1 ? quantum(j, low, 0, 15) : quantum(j, 0.0f, -8, 7) + 8;
      };
      append(static_cast<uint8_t>(nibble(i) | nibble(i + 16) << 4));
    }
  }
  return bytes;
}

}  // namespace fovea::compute
