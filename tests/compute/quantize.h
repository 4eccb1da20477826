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

// A block of 256 values of a K type: parts of 32 (16 for Q6_K) with a scale, and an offset but for
// Q6_K, which are quantised themselves.
inline std::vector<uint8_t> QuantizeKBlock(DType dtype, const float* block) {
  const bool is_q6 = dtype == DType::kQ6_K;
  const int part_size = is_q6 ? 16 : 32;
  const int n_parts = 256 / part_size;
  const int largest_quantum = dtype == DType::kQ4_K ? 15 : dtype == DType::kQ5_K ? 31 : 63;
  std::vector<float> scales(n_parts), offsets(n_parts);  // value = scale·q − offset
  for (int p = 0; p < n_parts; ++p) {
    const auto [low, high] =
        std::minmax_element(block + p * part_size, block + (p + 1) * part_size);
    if (is_q6) {
      scales[p] = std::max(std::abs(*low), std::abs(*high)) / 31.0f;
    } else {
      offsets[p] = std::max(0.0f, -*low);
      scales[p] = std::max(0.0f, *high + offsets[p]) / static_cast<float>(largest_quantum);
    }
  }
  const float largest_scale = is_q6 ? 127.0f : 63.0f;
  const uint16_t d = FloatToHalf(*std::max_element(scales.begin(), scales.end()) / largest_scale);
  const uint16_t m = FloatToHalf(*std::max_element(offsets.begin(), offsets.end()) / 63.0f);
  const auto rounded = [](float value, float unit, int largest) {
    return unit > 0.0f ? std::clamp(static_cast<int>(std::round(value / unit)), 0, largest) : 0;
  };
  std::vector<int> scale_quanta(n_parts), offset_quanta(n_parts), q(256);
  for (int p = 0; p < n_parts; ++p) {
    scale_quanta[p] = rounded(scales[p], HalfToFloat(d), static_cast<int>(largest_scale));
    offset_quanta[p] = rounded(offsets[p], HalfToFloat(m), 63);
    const float scale = HalfToFloat(d) * static_cast<float>(scale_quanta[p]);
    const float offset =
        is_q6 ? 32.0f * scale : HalfToFloat(m) * static_cast<float>(offset_quanta[p]);
    for (int i = p * part_size; i < (p + 1) * part_size; ++i) {
      q[i] = rounded(block[i] + offset, scale, largest_quantum);
    }
  }
  if (is_q6) {
    std::vector<uint8_t> bytes(210);
    for (int half = 0; half < 2; ++half) {
      for (int j = 0; j < 32; ++j) {
        const int* v = q.data() + 128 * half + j;
        bytes[64 * half + j] = (v[0] & 15) | (v[64] & 15) << 4;
        bytes[64 * half + 32 + j] = (v[32] & 15) | (v[96] & 15) << 4;
        bytes[128 + 32 * half + j] =
            v[0] >> 4 | v[32] >> 4 << 2 | v[64] >> 4 << 4 | v[96] >> 4 << 6;
      }
    }
    for (int p = 0; p < 16; ++p) bytes[192 + p] = static_cast<uint8_t>(scale_quanta[p]);
    std::memcpy(bytes.data() + 208, &d, 2);
    return bytes;
  }
  const size_t nibbles = dtype == DType::kQ5_K ? 48 : 16;
  std::vector<uint8_t> bytes(nibbles + 128);
  std::memcpy(bytes.data(), &d, 2);
  std::memcpy(bytes.data() + 2, &m, 2);
  for (int p = 0; p < 4; ++p) {
    bytes[4 + p] = scale_quanta[p] | scale_quanta[p + 4] >> 4 << 6;
    bytes[8 + p] = offset_quanta[p] | offset_quanta[p + 4] >> 4 << 6;
    bytes[12 + p] = (scale_quanta[p + 4] & 15) | (offset_quanta[p + 4] & 15) << 4;
  }
  for (int i = 0; i < 256; ++i) {
    const int part = i / 32;
    bytes[nibbles + 32 * (part / 2) + i % 32] |= (q[i] & 15) << 4 * (part % 2);
    if (dtype == DType::kQ5_K) bytes[16 + i % 32] |= q[i] >> 4 << part;
  }
  return bytes;
}

// The length of `values` is a multiple of the type's block.
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
  if (Traits(dtype).block_size == 256) {
    for (size_t first = 0; first + 256 <= values.size(); first += 256) {
      for (const uint8_t byte : QuantizeKBlock(dtype, values.data() + first)) append(byte);
    }
    return bytes;
  }
  const bool has_offset = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
  const bool has_fifth_bit = dtype == DType::kQ5_0 || dtype == DType::kQ5_1;
  const int n_quanta = has_fifth_bit ? 32 : 16;
  for (size_t first = 0; first + 32 <= values.size(); first += 32) {
    const float* block = values.data() + first;
    const float low = *std::min_element(block, block + 32);
    const float high = *std::max_element(block, block + 32);
    const float largest = std::max(std::abs(low), std::abs(high));
    const float scale = has_offset              ? (high - low) / static_cast<float>(n_quanta - 1)
                        : dtype == DType::kQ8_0 ? largest / 127.0f
                                                : largest / static_cast<float>(n_quanta / 2 - 1);
    const auto quantum = [&](int i, float offset, int smallest, int greatest) {
      const float q = scale > 0.0f ? std::round((block[i] - offset) / scale) : 0.0f;
      return std::clamp(static_cast<int>(q), smallest, greatest);
    };
    append(FloatToHalf(scale));
    if (dtype == DType::kQ8_0) {
      for (int i = 0; i < 32; ++i) append(static_cast<int8_t>(quantum(i, 0.0f, -127, 127)));
      continue;
    }
    if (has_offset) append(FloatToHalf(low));
    int q[32];
    uint32_t fifth_bits = 0;
    for (int i = 0; i < 32; ++i) {
      q[i] = has_offset ? quantum(i, low, 0, n_quanta - 1)
                        : quantum(i, 0.0f, -n_quanta / 2, n_quanta / 2 - 1) + n_quanta / 2;
      fifth_bits |= static_cast<uint32_t>(q[i] >> 4) << i;
    }
    if (has_fifth_bit) append(fifth_bits);
    for (int i = 0; i < 16; ++i) append(static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4));
  }
  return bytes;
}

}  // namespace fovea::compute
