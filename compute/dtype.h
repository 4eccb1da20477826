// Element types of stored tensors, among them the block-quantised types of GGUF.
//
// A row of a quantised tensor is a whole number of blocks; a block holds block_size values in
// block_bytes bytes. Layouts (little-endian), GGUF specification:
//   Q4_0: half d; 16 bytes q      value[i] = d·(q_i − 8); byte j holds q_j (low), q_{j+16} (high)
//   Q4_1: half d, half m; 16 bytes q   value[i] = d·q_i + m, same order of nibbles
//   Q5_0: half d; u32 h; 16 bytes q   value[i] = d·(q_i + 16·h_i − 16), nibbles as above, h_i bit i
//   Q5_1: half d, half m; u32 h; 16 bytes q   value[i] = d·(q_i + 16·h_i) + m
//   Q8_0: half d; 32 int8 q       value[i] = d·q_i
// K types: 256 values, eight parts of 32 (p = i / 32, j = i mod 32).
//   Q4_K: half d, half m; 12 bytes of packed scales; 128 bytes q
//         value[i] = d·s_p·q_i − m·n_p; byte 32·(p / 2) + j holds q_i, low for even p, high for odd
//         s_p, n_p have 6 bits: for p < 4 the low bits of bytes p and p + 4; for p ≥ 4 the low and
//         the high nibble of byte p + 4, and above them the two high bits of bytes p − 4 and p
//   Q5_K: half d, half m; 12 bytes as in Q4_K; 32 bytes h; 128 bytes q as in Q4_K
//         value[i] = d·s_p·(q_i + 16·bit p of h_j) − m·n_p
//   Q6_K: 128 bytes q; 64 bytes h; 16 int8 s; half d
//         value[i] = d·s_(i/16)·(q_i + 16·h_i − 32); of each 128 values (p = 0 … 3) byte
//         32·(p mod 2) + j of 64 bytes q holds q_i, low for p < 2, high for others; byte j of 32
//         bytes h holds h_i in bits 2p and 2p + 1
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace fovea::compute {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

// Every type, for tests and benches.
inline constexpr DType kAllDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                                       DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                                       DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Of the largest block.
inline constexpr int kMaxBlockSize = 256;

struct DTypeTraits {
  std::string_view name;
  int block_size;   // values in a block; 1 for plain types
  int block_bytes;  // bytes of a block
};
const DTypeTraits& Traits(DType dtype);

// Bytes of a row of `n_values`. InvalidArgument when n_values is negative, is no whole number of
// blocks, or the product overflows.
absl::StatusOr<size_t> RowBytes(DType dtype, int64_t n_values);

// Scale and offset of part p of a Q4_K or Q5_K block, from its 12 bytes of packed scales.
struct KScale {
  int scale;   // 0 … 63
  int offset;  // 0 … 63
};
inline KScale UnpackKScale(const uint8_t* packed, int p) {
  if (p < 4) return {packed[p] & 63, packed[p + 4] & 63};
  return {(packed[p + 4] & 15) | packed[p - 4] >> 6 << 4, packed[p + 4] >> 4 | packed[p] >> 6 << 4};
}

// One stored row → float. `row` needs no alignment; n_values is a multiple of the block size.
void DequantizeRow(DType dtype, const std::byte* row, int64_t n_values, float* out);

}  // namespace fovea::compute
