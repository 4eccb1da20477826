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
  static constexpr DTypeTraits kQ8_0{"Q8_0", 32, 34};
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
    case DType::kQ8_0:
      return kQ8_0;
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
    case DType::kQ8_0:
      return DequantizeQ8_0(row, n_values, out);
  }
}

}  // namespace fovea::compute
