#include "compute/cpu/bf16_product.h"

#include "base/status.h"
#include "compute/cpu/amx.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <utility>

namespace fovea::compute::cpu {
namespace {

#define FOVEA_BF16 target("avx512f,avx512bw,avx512vl,avx512bf16")

// 6 × 4 sums, 4 of b and 1 of a want 29 of 32 registers.
constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;
// GCC 12 warns of unmasked intrinsics' own undefined operands.
constexpr __mmask16 kAll = 0xffff;

__attribute__((FOVEA_BF16, always_inline)) inline __m512i RoundToHalves(__m512 x) {
  return _mm512_maskz_cvtepu16_epi32(kAll, (__m256i)_mm512_cvtneps_pbh(x));
}

// Not inlined and with nothing else in it, so that compilers keep the sums in registers.
template <int kRows, int kVectors>
__attribute__((FOVEA_BF16, noinline)) void Tile(const uint32_t* a, int64_t a_row_stride,
                                                int64_t a_k_stride, const uint32_t* b,
                                                int64_t b_stride, int64_t n_pairs, bool add_to_c,
                                                float* c, int64_t c_stride) {
  __m512 sum[kRows][kVectors];
  const __mmask16 old = add_to_c ? kAll : 0;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      sum[i][v] = _mm512_maskz_load_ps(old, c + i * c_stride + v * 16);
  }
  for (int64_t k = 0; k < n_pairs; ++k) {
    __m512i bk[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) bk[v] = _mm512_load_si512(b + k * b_stride + v * 16);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512i aik =
          _mm512_set1_epi32(static_cast<int32_t>(a[i * a_row_stride + k * a_k_stride]));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = _mm512_dpbf16_ps(sum[i][v], (__m512bh)aik, (__m512bh)bk[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) _mm512_store_ps(c + i * c_stride + v * 16, sum[i][v]);
  }
}

template <int kVectors>
void Columns(const Bf16ProductArgs& p, int64_t n_rows, int64_t column) {
  const auto run = [&]<int kRows>(int64_t row) {
    Tile<kRows, kVectors>(p.a + row * p.a_row_stride, p.a_row_stride, p.a_k_stride, p.b + column,
                          p.b_stride, p.n_pairs, p.add_to_c, p.c + row * p.c_stride + column,
                          p.c_stride);
  };
  int64_t row = 0;
  for (; row + kTileRows <= n_rows; row += kTileRows) run.template operator()<kTileRows>(row);
  switch (n_rows - row) {
    case 1:
      return run.template operator()<1>(row);
    case 2:
      return run.template operator()<2>(row);
    case 3:
      return run.template operator()<3>(row);
    case 4:
      return run.template operator()<4>(row);
    case 5:
      return run.template operator()<5>(row);
    default:
      return;
  }
}

// By tiles of 16 rows and 16 columns, four beside one another; of the pairs as many as a tile has
// rows, and the rest in tiles of their own shape. Whatever rows are multiplied beside it, a row is
// multiplied by the same instructions: its bits do not depend on them.
constexpr int64_t kAmxPairs = 16;
enum AmxTile : int { kA = 4, kB, kRestOfA, kRestOfB };

// rows [n_columns ≤ 16, 16] of `to` = columns of from [n_rows ≤ 16, n_columns], 32-bit units.
__attribute__((FOVEA_BF16)) void TransposeTile(const uint32_t* from, int64_t stride, int64_t n_rows,
                                               int64_t n_columns, uint32_t (*to)[16]) {
  const __m512i down =
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(16));
  const auto mask = static_cast<__mmask16>((1u << n_columns) - 1);
  for (int64_t row = 0; row < n_rows; ++row) {
    _mm512_mask_i32scatter_epi32(to[0] + row, mask, down,
                                 _mm512_maskz_loadu_epi32(mask, from + row * stride), 4);
  }
}

template <int kVectors>
void ColumnsAmx(const AmxTiles& tiles, const Bf16ProductArgs& p, int64_t row, int64_t n_rows,
                int64_t column) {
  float* const c = p.c + row * p.c_stride + column;
  const int64_t c_bytes = p.c_stride * static_cast<int64_t>(sizeof(float));
  const int64_t b_bytes = p.b_stride * static_cast<int64_t>(sizeof(uint32_t));
  const auto each = [](auto&& function) {
    [&]<int... kIs>(std::integer_sequence<int, kIs...>) {
      (function.template operator()<kIs>(), ...);
    }
    (std::make_integer_sequence<int, kVectors>());
  };
  each([&]<int kI>() {
    if (p.add_to_c) {
      tiles.Load<kI>(c + kI * 16, c_bytes);
    } else {
      tiles.Zero<kI>();
    }
  });
  const auto add = [&]<int kOfA, int kOfB>(int64_t k, int64_t n_pairs) {
    alignas(64) uint32_t transposed[kAmxRows][kAmxPairs];
    const uint32_t* const a = p.a + row * p.a_row_stride + k * p.a_k_stride;
    if (p.a_k_stride == 1) {
      tiles.Load<kOfA>(a, p.a_row_stride * static_cast<int64_t>(sizeof(uint32_t)));
    } else {
      TransposeTile(a, p.a_k_stride, n_pairs, n_rows, transposed);
      tiles.Load<kOfA>(transposed, sizeof(transposed[0]));
    }
    each([&]<int kI>() {
      tiles.Load<kOfB>(p.b + k * p.b_stride + column + kI * 16, b_bytes);
      tiles.AddBf16Products<kI, kOfA, kOfB>();
    });
  };
  int64_t k = 0;
  for (; k + kAmxPairs <= p.n_pairs; k += kAmxPairs) add.template operator()<kA, kB>(k, kAmxPairs);
  if (k < p.n_pairs) add.template operator()<kRestOfA, kRestOfB>(k, p.n_pairs - k);
  each([&]<int kI>() { tiles.Store<kI>(c + kI * 16, c_bytes); });
}

void ProductAmx(const Bf16ProductArgs& p, int64_t n_rows, int64_t n_columns) {
  const auto rest = static_cast<uint8_t>(p.n_pairs % kAmxPairs);
  int64_t row = 0;
  while (row < n_rows) {
    const int64_t height = std::min(kAmxRows, n_rows - row);
    const auto rows = static_cast<uint8_t>(height);
    const AmxTiles::Shape sums{rows, 64};
    AmxTiles::Shape rest_of_a, rest_of_b;
    if (rest > 0) {
      rest_of_a = {rows, static_cast<uint16_t>(rest * sizeof(uint32_t))};
      rest_of_b = {rest, 64};
    }
    const AmxTiles tiles(
        {sums, sums, sums, sums, {rows, 64}, {kAmxPairs, 64}, rest_of_a, rest_of_b});
    for (; n_rows - row >= height; row += height) {
      int64_t column = 0;
      for (; column + 64 <= n_columns; column += 64) {
        ColumnsAmx<4>(tiles, p, row, height, column);
      }
      for (; column < n_columns; column += 16) ColumnsAmx<1>(tiles, p, row, height, column);
    }
  }
}

}  // namespace

bool HasBf16Product() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bf16");
  return has;
}

__attribute__((FOVEA_BF16)) void PackRowPairs(float* rows, int64_t n_pairs, int64_t n_columns,
                                              int64_t stride) {
  for (int64_t pair = 0; pair < n_pairs; ++pair) {
    const float* const even = rows + 2 * pair * stride;
    const float* const odd = even + stride;
    float* const to = rows + pair * stride;
    for (int64_t i = 0; i < n_columns; i += 16) {
      const __m512i low = RoundToHalves(_mm512_load_ps(even + i));
      const __m512i high = RoundToHalves(_mm512_load_ps(odd + i));
      _mm512_store_si512(to + i, _mm512_or_si512(low, _mm512_maskz_slli_epi32(kAll, high, 16)));
    }
  }
}

__attribute__((FOVEA_BF16)) void PackNeighbours(const float* x, int64_t n, uint32_t* pairs) {
  for (int64_t i = 0; i < n; i += 16) {
    const auto n_left = static_cast<unsigned>(n - i < 16 ? n - i : 16);
    const auto mask = static_cast<__mmask16>((1u << n_left) - 1);
    const __m512 values = _mm512_maskz_loadu_ps(mask, x + i);
    _mm256_mask_storeu_epi16(pairs + i / 2, mask, (__m256i)_mm512_cvtneps_pbh(values));
  }
}

void Bf16Product(const Bf16ProductArgs& args, int64_t n_rows, int64_t n_columns) {
  if (HasAmxBf16()) return ProductAmx(args, n_rows, n_columns);
  int64_t column = 0;
  for (; column + kTileVectors * 16 <= n_columns; column += kTileVectors * 16) {
    Columns<kTileVectors>(args, n_rows, column);
  }
  for (; column < n_columns; column += 16) Columns<1>(args, n_rows, column);
}

}  // namespace fovea::compute::cpu

#else

namespace fovea::compute::cpu {

bool HasBf16Product() { return false; }
void PackRowPairs(float*, int64_t, int64_t, int64_t) { FOVEA_CHECK(false); }
void PackNeighbours(const float*, int64_t, uint32_t*) { FOVEA_CHECK(false); }
void Bf16Product(const Bf16ProductArgs&, int64_t, int64_t) { FOVEA_CHECK(false); }

}  // namespace fovea::compute::cpu

#endif
