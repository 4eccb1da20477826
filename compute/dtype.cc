#include "compute/dtype.h"

#include <bit>
#include <cstring>
#include <limits>

#include "base/float16.h"

namespace fovea::compute {
namespace {

uint16_t LoadU16(const std::byte* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

void DequantizeF32(const std::byte* row, int64_t n_values, float* out) {
  std::memcpy(out, row, static_cast<size_t>(n_values) * sizeof(float));
}

void DequantizeF16(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; ++i) out[i] = HalfToFloat(LoadU16(row + 2 * i));
}

void DequantizeBF16(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(LoadU16(row + 2 * i)) << 16);
  }
}

void DequantizeQ4_0(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 32, row += 18) {
    const float d = HalfToFloat(LoadU16(row));
    for (int j = 0; j < 16; ++j) {
      const int q = std::to_integer<int>(row[2 + j]);
      out[i + j] = d * static_cast<float>((q & 15) - 8);
      out[i + j + 16] = d * static_cast<float>((q >> 4) - 8);
    }
  }
}

void DequantizeQ4_1(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 32, row += 20) {
    const float d = HalfToFloat(LoadU16(row));
    const float m = HalfToFloat(LoadU16(row + 2));
    for (int j = 0; j < 16; ++j) {
      const int q = std::to_integer<int>(row[4 + j]);
      out[i + j] = d * static_cast<float>(q & 15) + m;
      out[i + j + 16] = d * static_cast<float>(q >> 4) + m;
    }
  }
}

// The bits above the nibbles of a block of 32.
uint32_t LoadHighBits(const std::byte* bytes) {
  uint32_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

void DequantizeQ5_0(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 32, row += 22) {
    const float d = HalfToFloat(LoadU16(row));
    const uint32_t high = LoadHighBits(row + 2);
    for (int j = 0; j < 16; ++j) {
      const int q = std::to_integer<int>(row[6 + j]);
      const int low_value = (q & 15) | static_cast<int>(high >> j & 1) << 4;
      const int high_value = q >> 4 | static_cast<int>(high >> (j + 16) & 1) << 4;
      out[i + j] = d * static_cast<float>(low_value - 16);
      out[i + j + 16] = d * static_cast<float>(high_value - 16);
    }
  }
}

void DequantizeQ5_1(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 32, row += 24) {
    const float d = HalfToFloat(LoadU16(row));
    const float m = HalfToFloat(LoadU16(row + 2));
    const uint32_t high = LoadHighBits(row + 4);
    for (int j = 0; j < 16; ++j) {
      const int q = std::to_integer<int>(row[8 + j]);
      const int low_value = (q & 15) | static_cast<int>(high >> j & 1) << 4;
      const int high_value = q >> 4 | static_cast<int>(high >> (j + 16) & 1) << 4;
      out[i + j] = d * static_cast<float>(low_value) + m;
      out[i + j + 16] = d * static_cast<float>(high_value) + m;
    }
  }
}

// Q4_K, and Q5_K with its bits above the nibbles.
template <bool kHasHighBits>
void DequantizeQ45_K(const std::byte* row, int64_t n_values, float* out) {
  constexpr int kNibbles = kHasHighBits ? 48 : 16;
  for (int64_t i = 0; i < n_values; i += 256, row += kNibbles + 128) {
    const float d = HalfToFloat(LoadU16(row));
    const float m = HalfToFloat(LoadU16(row + 2));
    const auto* scales = reinterpret_cast<const uint8_t*>(row + 4);
    const auto* high = reinterpret_cast<const uint8_t*>(row + 16);
    const auto* nibbles = reinterpret_cast<const uint8_t*>(row + kNibbles);
    for (int p = 0; p < 8; ++p) {
      const auto [scale, offset] = UnpackKScale(scales, p);
      const float part_d = d * static_cast<float>(scale);
      const float part_m = m * static_cast<float>(offset);
      for (int j = 0; j < 32; ++j) {
        int q = nibbles[32 * (p / 2) + j] >> 4 * (p % 2) & 15;
        if constexpr (kHasHighBits) q |= (high[j] >> p & 1) << 4;
        out[i + 32 * p + j] = part_d * static_cast<float>(q) - part_m;
      }
    }
  }
}

void DequantizeQ6_K(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 256, row += 210) {
    const auto* low = reinterpret_cast<const uint8_t*>(row);
    const auto* high = reinterpret_cast<const uint8_t*>(row + 128);
    const auto* scales = reinterpret_cast<const int8_t*>(row + 192);
    const float d = HalfToFloat(LoadU16(row + 208));
    for (int k = 0; k < 256; ++k) {
      const int p = k / 32 % 4;
      const int j = k % 32;
      const int nibble = low[64 * (k / 128) + 32 * (p % 2) + j] >> 4 * (p / 2) & 15;
      const int above = high[32 * (k / 128) + j] >> 2 * p & 3;
      out[i + k] =
          d * static_cast<float>(scales[k / 16]) * static_cast<float>((nibble | above << 4) - 32);
    }
  }
}

void DequantizeQ8_0(const std::byte* row, int64_t n_values, float* out) {
  for (int64_t i = 0; i < n_values; i += 32, row += 34) {
    const float d = HalfToFloat(LoadU16(row));
    for (int j = 0; j < 32; ++j) {
      out[i + j] = d * static_cast<float>(std::to_integer<int8_t>(row[2 + j]));
    }
  }
}

}  // namespace

const DTypeTraits& Traits(DType dtype) {
  static constexpr DTypeTraits kF32{"F32", 1, 4};
  static constexpr DTypeTraits kF16{"F16", 1, 2};
  static constexpr DTypeTraits kBF16{"BF16", 1, 2};
  static constexpr DTypeTraits kQ4_0{"Q4_0", 32, 18};
  static constexpr DTypeTraits kQ4_1{"Q4_1", 32, 20};
  static constexpr DTypeTraits kQ5_0{"Q5_0", 32, 22};
  static constexpr DTypeTraits kQ5_1{"Q5_1", 32, 24};
  static constexpr DTypeTraits kQ8_0{"Q8_0", 32, 34};
  static constexpr DTypeTraits kQ4_K{"Q4_K", 256, 144};
  static constexpr DTypeTraits kQ5_K{"Q5_K", 256, 176};
  static constexpr DTypeTraits kQ6_K{"Q6_K", 256, 210};
  switch (dtype) {
    case DType::kF32:
      return kF32;
    case DType::kF16:
      return kF16;
    case DType::kBF16:
      return kBF16;
    case DType::kQ4_0:
      return kQ4_0;
    case DType::kQ4_1:
      return kQ4_1;
    case DType::kQ5_0:
      return kQ5_0;
    case DType::kQ5_1:
      return kQ5_1;
    case DType::kQ8_0:
      return kQ8_0;
    case DType::kQ4_K:
      return kQ4_K;
    case DType::kQ5_K:
      return kQ5_K;
    case DType::kQ6_K:
      return kQ6_K;
  }
  FOVEA_CHECK(false && "unknown DType");
  return kF32;
}

absl::StatusOr<size_t> RowBytes(DType dtype, int64_t n_values) {
  const DTypeTraits& traits = Traits(dtype);
  if (n_values < 0 || n_values % traits.block_size != 0) {
    return absl::InvalidArgumentError(StrCat("a row of ", n_values, " values of type ", traits.name,
                                             ": want a multiple of ", traits.block_size));
  }
  const int64_t n_blocks = n_values / traits.block_size;
  if (n_blocks > std::numeric_limits<int64_t>::max() / traits.block_bytes) {
    return absl::InvalidArgumentError(StrCat("a row of ", n_values, " values of type ", traits.name,
                                             ": its size overflows 64 bits"));
  }
  return static_cast<size_t>(n_blocks * traits.block_bytes);
}

void DequantizeRow(DType dtype, const std::byte* row, int64_t n_values, float* out) {
  FOVEA_CHECK(n_values % Traits(dtype).block_size == 0);
  switch (dtype) {
    case DType::kF32:
      return DequantizeF32(row, n_values, out);
    case DType::kF16:
      return DequantizeF16(row, n_values, out);
    case DType::kBF16:
      return DequantizeBF16(row, n_values, out);
    case DType::kQ4_0:
      return DequantizeQ4_0(row, n_values, out);
    case DType::kQ4_1:
      return DequantizeQ4_1(row, n_values, out);
    case DType::kQ5_0:
      return DequantizeQ5_0(row, n_values, out);
    case DType::kQ5_1:
      return DequantizeQ5_1(row, n_values, out);
    case DType::kQ8_0:
      return DequantizeQ8_0(row, n_values, out);
    case DType::kQ4_K:
      return DequantizeQ45_K<false>(row, n_values, out);
    case DType::kQ5_K:
      return DequantizeQ45_K<true>(row, n_values, out);
    case DType::kQ6_K:
      return DequantizeQ6_K(row, n_values, out);
  }
}

}  // namespace fovea::compute
