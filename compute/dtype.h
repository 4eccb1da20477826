// Element types of stored tensors, among them the block-quantised types of GGUF.
//
// A row of a quantised tensor is a whole number of blocks; a block holds block_size values in
// block_bytes bytes. Layouts (little-endian), GGUF specification:
//   Q4_0: half d; 16 bytes q      value[i] = d·(q_i − 8); byte j holds q_j (low), q_{j+16} (high)
//   Q4_1: half d, half m; 16 bytes q   value[i] = d·q_i + m, same order of nibbles
//   Q8_0: half d; 32 int8 q       value[i] = d·q_i
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace fovea::compute {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ8_0 };

struct DTypeTraits {
  std::string_view name;
  int block_size;   // values in a block; 1 for plain types
  int block_bytes;  // bytes of a block
};
const DTypeTraits& Traits(DType dtype);

// Bytes of a row of `n_values`. InvalidArgument when n_values is negative, is no whole number of
// blocks, or the product overflows.
absl::StatusOr<size_t> RowBytes(DType dtype, int64_t n_values);

// One stored row → float. `row` needs no alignment; n_values is a multiple of the block size.
void DequantizeRow(DType dtype, const std::byte* row, int64_t n_values, float* out);

}  // namespace fovea::compute
