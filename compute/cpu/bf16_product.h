// Products of bfloat16 matrices with float sums, for attention where 8-bit weights are good enough
// (Precision::kInt8): twice as fast as float32 where the processor has instructions for them, and
// again more than twice as fast by tiles (AMX), which round the sums in another order.
#pragma once

#include <cstdint>

namespace fovea::compute::cpu {

// Whether the processor has AVX-512 BF16; without it the functions below must not be called.
bool HasBf16Product();

// Rows 2j and 2j + 1 of floats [2 · n_pairs, n_columns], stride floats apart → row j of pairs (the
// even row in the low half), rounded to nearest even, in place: in 32-bit units row j lies where
// row j of the floats did. n_columns is a multiple of 16, rows are 64-byte aligned.
void PackRowPairs(float* rows, int64_t n_pairs, int64_t n_columns, int64_t stride);

// x [n], n even → n / 2 pairs of neighbours.
void PackNeighbours(const float* x, int64_t n, uint32_t* pairs);

// c[n_rows, n_columns] (+)= Σ over pairs k of a(i, k) · b(k, column), both halves;
// a(i, k) = a[i · a_row_stride + k · a_k_stride]. Strides count pairs and floats.
struct Bf16ProductArgs {
  const uint32_t* a = nullptr;
  int64_t a_row_stride = 0;
  int64_t a_k_stride = 0;
  const uint32_t* b = nullptr;  // [n_pairs, n_columns], rows 64-byte aligned
  int64_t b_stride = 0;
  int64_t n_pairs = 0;
  bool add_to_c = false;
  float* c = nullptr;  // rows 64-byte aligned
  int64_t c_stride = 0;
};
// n_columns is a multiple of 16. The bits of a row do not depend on the rows beside it.
void Bf16Product(const Bf16ProductArgs& args, int64_t n_rows, int64_t n_columns);

}  // namespace fovea::compute::cpu
