#include "compute/cpu/matvec.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/float16.h"
#include "base/status.h"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/matvec.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "compute/cpu/block_pairs-inl.h"
#include "compute/cpu/stored_blocks-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <DType kType, class D>
HWY_INLINE hn::Vec<D> LoadPlain(D d, const std::byte* row, int64_t i) {
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(d, reinterpret_cast<const float*>(row) + i);
  } else if constexpr (kType == DType::kF16) {
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(row) + i));
  } else {
    const hn::Rebind<hwy::bfloat16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::bfloat16_t*>(row) + i));
  }
}

// sum[t] + <row, x[t]> for kTokens vectors; what does not fill a vector is added to tail[t]. In an
// order that does not depend on kTokens.
template <DType kType, int kTokens, class D>
HWY_INLINE void DotPlain(D d, const std::byte* row, const float* x, int64_t n,
                         hn::Vec<D>* HWY_RESTRICT sum, float* HWY_RESTRICT tail) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  int64_t i = 0;
  // Sums that depend on each other wait for the latency of the addition; four of them do not.
  constexpr int kChains = 4;
  if (n >= kChains * kLanes) {
    hn::Vec<D> chains[kTokens * kChains];
    for (auto& chain : chains) chain = hn::Zero(d);
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
      for (int c = 0; c < kChains; ++c) {
        const auto w = LoadPlain<kType>(d, row, i + c * kLanes);
        for (int t = 0; t < kTokens; ++t) {
          auto& chain = chains[t * kChains + c];
          chain = hn::MulAdd(w, hn::LoadU(d, x + t * n + i + c * kLanes), chain);
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      for (int c = 0; c < kChains; ++c) sum[t] = hn::Add(sum[t], chains[t * kChains + c]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const auto w = LoadPlain<kType>(d, row, i);
    for (int t = 0; t < kTokens; ++t) sum[t] = hn::MulAdd(w, hn::LoadU(d, x + t * n + i), sum[t]);
  }
  if (i < n) {
    float values[kLanes];
    constexpr int64_t kValueBytes = kType == DType::kF32 ? 4 : 2;
    DequantizeRow(kType, row + i * kValueBytes, n - i, values);
    for (int t = 0; t < kTokens; ++t) {
      for (int64_t j = i; j < n; ++j) tail[t] += values[j - i] * x[t * n + j];
    }
  }
}

#if HWY_TARGET != HWY_SCALAR

// Weights are read once, in order, and a row is too short for the processor's own prefetching to
// get going. Measured on a Zen 4: 1,024 is too late, from 4,096 on it gets slower again.
constexpr size_t kPrefetchBytes = 2048;

// How bytes are multiplied.
enum class ByteProduct {
  kMultiplyAdd,  // in steps
  kVnni,         // in one instruction, in the encoding of the instruction set
};

using DI = hn::Repartition<int32_t, blocks::D8>;
using DF = hn::Repartition<float, blocks::D8>;
using VI = hn::Vec<DI>;
using VX = hn::Vec<hn::RebindToSigned<blocks::D8>>;

#if HWY_TARGET <= HWY_AVX2
template <ByteProduct kProduct>
HWY_INLINE VI AddVnni(VI sum, blocks::V8 a, VX b) {
  static_assert(kProduct == ByteProduct::kVnni);
  // Not an intrinsic: the instruction set that this is compiled for does not include it. Chosen
  // where the processor has it (MatVecRows).
#if HWY_TARGET <= HWY_AVX3
  asm("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "vm"(b.raw));
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(a.raw), "xm"(b.raw));
#endif
  return sum;
}
#endif

// sum + products of quanta (at most 127) and signed digits (at least −127), added up within each
// 16 of them; between which lanes of those 16 differs.
template <ByteProduct kProduct>
HWY_INLINE VI AddProducts(VI sum, blocks::V8 quanta, VX digits) {
#if HWY_TARGET <= HWY_AVX2
  if constexpr (kProduct == ByteProduct::kVnni) {
    return AddVnni<kProduct>(sum, quanta, digits);
  } else {
    const auto pairs = _mm256_maddubs_epi16(quanta.raw, digits.raw);
    return hn::Add(sum, VI{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
  }
#else
  const hn::Repartition<int16_t, blocks::D8> d16;
  const hn::Half<hn::RebindToSigned<blocks::D8>> half;
  const auto signed_quanta = hn::BitCast(hn::RebindToSigned<blocks::D8>(), quanta);
  auto high = hn::Zero(DI());
  sum = hn::ReorderWidenMulAccumulate(DI(), hn::PromoteTo(d16, hn::LowerHalf(half, signed_quanta)),
                                      hn::PromoteTo(d16, hn::LowerHalf(half, digits)), sum, high);
  sum = hn::ReorderWidenMulAccumulate(DI(), hn::PromoteTo(d16, hn::UpperHalf(half, signed_quanta)),
                                      hn::PromoteTo(d16, hn::UpperHalf(half, digits)), sum, high);
  return hn::Add(sum, high);
#endif
}

// The same for quanta that are signed bytes.
template <ByteProduct kProduct>
HWY_INLINE VI AddSignedProducts(VI sum, blocks::V8 quanta, VX digits) {
#if HWY_TARGET <= HWY_AVX2
  const __m256i magnitude = _mm256_sign_epi8(quanta.raw, quanta.raw);
  const __m256i with_sign = _mm256_sign_epi8(digits.raw, quanta.raw);
  return AddProducts<kProduct>(sum, blocks::V8{magnitude}, VX{with_sign});
#else
  return AddProducts<kProduct>(sum, quanta, digits);
#endif
}

// Sums of products of a block's integers (see stored_blocks-inl.h) and those of a vector, from
// value i on; added up within each 16 values.
template <class Type, ByteProduct kProduct>
HWY_INLINE VI BlockProducts(blocks::V8 quanta, const QuantizedVectors& x, int64_t at) {
  const hn::RebindToSigned<blocks::D8> d8;
  const DI di;
  const VX high = hn::LoadU(d8, x.high + at);
  const VX low = hn::LoadU(d8, x.low + at);
  constexpr bool kIsSigned = Type::kZero == 128;
  if constexpr (kIsSigned && kProduct == ByteProduct::kMultiplyAdd) {
    const VI upper = AddSignedProducts<kProduct>(hn::Zero(di), quanta, high);
    return AddSignedProducts<kProduct>(hn::ShiftLeft<7>(upper), quanta, low);
  } else {
    if constexpr (kIsSigned) {
      // The first factor of the instruction is unsigned.
      quanta = hn::Xor(quanta, hn::Set(blocks::D8(), uint8_t{128}));
    }
    VI sum = AddProducts<kProduct>(hn::Zero(di), quanta, high);
    sum = AddProducts<kProduct>(hn::ShiftLeft<7>(sum), quanta, low);
    if constexpr (Type::kZero != 0) {
      constexpr int kBits = hwy::CeilLog2(static_cast<unsigned>(Type::kZero));
      static_assert(Type::kZero == 1 << kBits);
      sum = hn::Sub(sum, hn::ShiftLeft<kBits>(hn::LoadU(di, x.sums + at / 4)));
    }
    return sum;
  }
}

// sum[t] + <row, x[token + t]> for kTokens vectors, in an order that does not depend on kTokens.
template <class Type, ByteProduct kProduct, int kTokens>
HWY_INLINE void DotBlocks(const std::byte* row, const QuantizedVectors& x, int64_t token,
                          hn::Vec<DF>* HWY_RESTRICT sum) {
  constexpr int64_t kLanes = hn::MaxLanes(DF());
  constexpr int64_t kParts = Type::kHalves ? 2 : 1;
  // Two chains of sums hide the latency of the additions.
  constexpr int kChains = 2;
  const DF df;
  const int64_t n_blocks = x.n_values / kQuantizedBlock;
  hn::Vec<DF> chains[kTokens * kChains];
  for (auto& chain : chains) chain = hn::Zero(df);
  for (int64_t first = 0; first < n_blocks; first += blocks::kMaxBlocks) {
    const int64_t n = std::min(blocks::kMaxBlocks, n_blocks - first);
    HWY_ALIGN float scale[kParts * blocks::kMaxBlocks];
    HWY_ALIGN float offset[blocks::kMaxBlocks];
    Type::Scales(row, first, n, scale, offset);
    // Scales of the products.
    HWY_ALIGN float scales[kTokens][kParts * blocks::kMaxBlocks];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (token + t) * x.block_stride + first;
      for (int64_t b = 0; b < n; b += kLanes) {
        if constexpr (kParts == 1) {
          hn::Store(hn::Mul(hn::Load(df, scale + b), hn::Load(df, x.scales + at + b)), df,
                    scales[t] + b);
        } else {
          for (int64_t j = b; j < std::min(b + kLanes, n); ++j) {
            scales[t][2 * j] = scale[2 * j] * x.scales[at + j];
            scales[t][2 * j + 1] = scale[2 * j + 1] * x.scales[at + j];
          }
        }
        if constexpr (Type::kHasOffset) {
          sum[t] = hn::MulAdd(hn::Load(df, offset + b), hn::Load(df, x.totals + at + b), sum[t]);
        }
      }
    }
    const auto add_block = [&](int64_t b, int chain) HWY_ATTR {
      for (int64_t i = 0; i < kQuantizedBlock; i += blocks::kByteLanes) {
        const blocks::V8 quanta = Type::Quanta(row, first + b, i);
        for (int t = 0; t < kTokens; ++t) {
          const int64_t at = (token + t) * x.n_values + (first + b) * kQuantizedBlock + i;
          const VI products = BlockProducts<Type, kProduct>(quanta, x, at);
          auto factor = hn::Set(df, scales[t][kParts * b]);
          if constexpr (kParts == 2 && blocks::kByteLanes == 32) {
            factor = hn::ConcatLowerLower(df, hn::Set(df, scales[t][2 * b + 1]), factor);
          } else if constexpr (kParts == 2) {
            factor = hn::Set(df, scales[t][2 * b + i / 16]);
          }
          auto& to = chains[t * kChains + chain];
          to = hn::MulAdd(hn::ConvertTo(df, products), factor, to);
        }
      }
    };
    int64_t b = 0;
    for (; b + kChains <= n; b += kChains) {
      for (int chain = 0; chain < kChains; ++chain) add_block(b + chain, chain);
    }
    for (; b < n; ++b) add_block(b, 0);
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int c = 0; c < kChains; ++c) sum[t] = hn::Add(sum[t], chains[t * kChains + c]);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

// What is added to the product of a row, and where it goes.
template <int kTokens, class D>
HWY_INLINE void FinishRow(D d, const MatVecArgs& args, int64_t token, int64_t row,
                          hn::Vec<D>* HWY_RESTRICT sum, float* HWY_RESTRICT tail) {
  if (args.lora_b != nullptr) {
    const float* u = args.lora_u + token * args.lora_rank;
    if (args.lora_dtype == DType::kBF16) {
      const std::byte* b = args.lora_b + row * args.lora_rank * 2;
      DotPlain<DType::kBF16, kTokens>(d, b, u, args.lora_rank, sum, tail);
    } else {
      const std::byte* b = args.lora_b + row * args.lora_rank * 4;
      DotPlain<DType::kF32, kTokens>(d, b, u, args.lora_rank, sum, tail);
    }
  }
  const float bias = args.bias != nullptr ? args.bias[row] : 0.0f;
  for (int t = 0; t < kTokens; ++t) {
    const float result = hn::GetLane(hn::SumOfLanes(d, sum[t])) + tail[t] + bias;
    float* out = args.out + (token + t) * args.out_features + row;
    *out = result + (args.add_to_out ? *out : 0.0f);
  }
}

template <DType kType>
struct PlainRows {
  template <int kTokens>
  static HWY_NOINLINE void Run(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end) {
    const hn::CappedTag<float, 16> d;
    for (int64_t row = begin; row < end; ++row) {
      for (int pass = 0; pass < kTokens; pass += kTokensAtOnce<kTokens>) {
        constexpr int kAtOnce = kTokensAtOnce<kTokens>;
        hn::Vec<decltype(d)> sum[kAtOnce];
        for (auto& s : sum) s = hn::Zero(d);
        float tail[kAtOnce] = {};
        DotPlain<kType, kAtOnce>(d, args.weight + static_cast<size_t>(row) * args.row_bytes,
                                 args.x + (token + pass) * args.in_features, args.in_features, sum,
                                 tail);
        FinishRow<kAtOnce>(d, args, token + pass, row, sum, tail);
      }
    }
  }

 private:
  // Two, whose chains of sums fit into the registers; the row is in the cache for the next two.
  template <int kTokens>
  static constexpr int kTokensAtOnce = kTokens < 2 ? kTokens : 2;
};

template <class RowsOfType>
void AllTokens(const MatVecArgs& args, int64_t begin, int64_t end) {
  static_assert(kMatVecTokensPerPass == 4);
  int64_t token = 0;
  for (; token + 4 <= args.n_tokens; token += 4) {
    RowsOfType::template Run<4>(args, token, begin, end);
  }
  if (token + 2 <= args.n_tokens) {
    RowsOfType::template Run<2>(args, token, begin, end);
    token += 2;
  }
  if (token < args.n_tokens) RowsOfType::template Run<1>(args, token, begin, end);
}

void PlainRowsImpl(const MatVecArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::kF16:
      return AllTokens<PlainRows<DType::kF16>>(args, begin, end);
    case DType::kBF16:
      return AllTokens<PlainRows<DType::kBF16>>(args, begin, end);
    default:
      return AllTokens<PlainRows<DType::kF32>>(args, begin, end);
  }
}

#if HWY_TARGET == HWY_SCALAR

void BlockRowsImpl(const MatVecArgs& args, int64_t begin, int64_t end) {
  const hn::CappedTag<float, 1> d;
  const QuantizedVectors& x = *args.quantized;
  const int64_t block_bytes = Traits(args.dtype).block_bytes;
  const int64_t block_size = Traits(args.dtype).block_size;
  float values[kMaxBlockSize];
  for (int64_t row = begin; row < end; ++row) {
    const std::byte* weight = args.weight + static_cast<size_t>(row) * args.row_bytes;
    for (int64_t token = 0; token < args.n_tokens; ++token) {
      float sum = 0.0f;
      for (int64_t i = 0; i < x.n_values; ++i) {
        if (i % block_size == 0) {
          DequantizeRow(args.dtype, weight + i / block_size * block_bytes, block_size, values);
        }
        const int64_t at = token * x.n_values + i;
        sum += values[i % block_size] * x.scales[token * x.block_stride + i / kQuantizedBlock] *
               static_cast<float>(128 * x.high[at] + x.low[at]);
      }
      auto none = hn::Zero(d);
      FinishRow<1>(d, args, token, row, &none, &sum);
    }
  }
}

#else

template <class Type, ByteProduct kProduct>
struct BlockRows {
  template <int kTokens>
  static HWY_NOINLINE void Run(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end) {
    const DF d;
    const QuantizedVectors x = *args.quantized;
    for (int64_t row = begin; row < end; ++row) {
      hn::Vec<DF> sum[kTokens];
      for (auto& s : sum) s = hn::Zero(d);
      float tail[kTokens] = {};
      DotBlocks<Type, kProduct, kTokens>(args.weight + static_cast<size_t>(row) * args.row_bytes, x,
                                         token, sum);
      FinishRow<kTokens>(d, args, token, row, sum, tail);
    }
  }
};

#if HWY_TARGET <= HWY_AVX3

HWY_INLINE __m512i AddVnni(__m512i sum, __m512i a, __m512i b) {
  asm("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b));
  return sum;
}

// sum[t] = <row, x[token + t]> for kTokens vectors, with AVX-512 VNNI.
template <class Type, int kTokens>
HWY_INLINE void DotPairs(const std::byte* row, const QuantizedVectors& x, int64_t token,
                         hn::Vec512<float>* HWY_RESTRICT sum) {
  __m512 sums[kTokens];
  __m128 offsets[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    sums[t] = _mm512_setzero_ps();
    offsets[t] = _mm_setzero_ps();
  }
  const auto add_blocks = [&]<int kBlocks>(int64_t block) HWY_ATTR {
    const auto* at =
        reinterpret_cast<const uint8_t*>(row) + static_cast<size_t>(block) * Type::kBytes;
    _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
    const pairs::Pair pair = Type::template Load<kBlocks>(at);
    for (int t = 0; t < kTokens; ++t) {
      const int64_t value = (token + t) * x.n_values + block * kQuantizedBlock;
      const int64_t scale = (token + t) * x.block_stride + block;
      __m512i products =
          AddVnni(_mm512_setzero_si512(), pair.quanta, _mm512_loadu_si512(x.high + value));
      products =
          AddVnni(_mm512_slli_epi32(products, 7), pair.quanta, _mm512_loadu_si512(x.low + value));
      if constexpr (Type::kZeroBits != 0) {
        products = _mm512_sub_epi32(
            products, _mm512_slli_epi32(_mm512_loadu_si512(x.sums + value / 4), Type::kZeroBits));
      }
      sums[t] = _mm512_fmadd_ps(
          _mm512_cvtepi32_ps(products),
          _mm512_mul_ps(pair.scale, _mm512_loadu_ps(x.lane_scales + scale * 8)), sums[t]);
      if constexpr (Type::kHasOffset) {
        const __m128 totals =
            _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x.totals + scale)));
        offsets[t] = _mm_fmadd_ps(pair.offset, totals, offsets[t]);
      }
    }
  };
  const int64_t n_blocks = x.n_values / kQuantizedBlock;
  int64_t block = 0;
  for (; block + 2 <= n_blocks; block += 2) add_blocks.template operator()<2>(block);
  if (block < n_blocks) add_blocks.template operator()<1>(block);
  for (int t = 0; t < kTokens; ++t) {
    sum[t].raw = _mm512_add_ps(sums[t], _mm512_zextps128_ps512(offsets[t]));
  }
}

// One row after the other: two at a time read x half as often, but are two streams of weights,
// which the processor's prefetching follows less well.
template <class Type>
struct PairRows {
  template <int kTokens>
  static HWY_NOINLINE void Run(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end) {
    const hn::CappedTag<float, 16> d;
    const QuantizedVectors x = *args.quantized;
    for (int64_t row = begin; row < end; ++row) {
      hn::Vec<decltype(d)> sum[kTokens];
      float tail[kTokens] = {};
      DotPairs<Type, kTokens>(args.weight + static_cast<size_t>(row) * args.row_bytes, x, token,
                              sum);
      FinishRow<kTokens>(d, args, token, row, sum, tail);
    }
  }
};

// False where the type has no kernel of its own.
bool PairRowsOfType(const MatVecArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::kQ4_0:
      AllTokens<PairRows<pairs::Q4_0>>(args, begin, end);
      return true;
    case DType::kQ4_1:
      AllTokens<PairRows<pairs::Q4_1>>(args, begin, end);
      return true;
    case DType::kQ5_0:
      AllTokens<PairRows<pairs::Q5_0>>(args, begin, end);
      return true;
    case DType::kQ5_1:
      AllTokens<PairRows<pairs::Q5_1>>(args, begin, end);
      return true;
    case DType::kQ8_0:
      AllTokens<PairRows<pairs::Q8_0>>(args, begin, end);
      return true;
    default:
      return false;
  }
}

#endif  // HWY_TARGET <= HWY_AVX3

template <ByteProduct kProduct>
void BlockRowsOfType(const MatVecArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::kQ4_0:
      return AllTokens<BlockRows<blocks::Q4_0, kProduct>>(args, begin, end);
    case DType::kQ4_1:
      return AllTokens<BlockRows<blocks::Q4_1, kProduct>>(args, begin, end);
    case DType::kQ5_0:
      return AllTokens<BlockRows<blocks::Q5_0, kProduct>>(args, begin, end);
    case DType::kQ5_1:
      return AllTokens<BlockRows<blocks::Q5_1, kProduct>>(args, begin, end);
    case DType::kQ8_0:
      return AllTokens<BlockRows<blocks::Q8_0, kProduct>>(args, begin, end);
    case DType::kQ4_K:
      return AllTokens<BlockRows<blocks::Q4_K, kProduct>>(args, begin, end);
    case DType::kQ5_K:
      return AllTokens<BlockRows<blocks::Q5_K, kProduct>>(args, begin, end);
    case DType::kQ6_K:
      return AllTokens<BlockRows<blocks::Q6_K, kProduct>>(args, begin, end);
    default:
      return;
  }
}

void BlockRowsImpl(const MatVecArgs& args, int64_t begin, int64_t end) {
#if HWY_TARGET <= HWY_AVX2
#if HWY_TARGET <= HWY_AVX3
  const bool has_vnni = HasAvx512Vnni();
  if (has_vnni && PairRowsOfType(args, begin, end)) return;
#else
  const bool has_vnni = HasAvxVnni();
#endif
  if (has_vnni) return BlockRowsOfType<ByteProduct::kVnni>(args, begin, end);
#endif
  return BlockRowsOfType<ByteProduct::kMultiplyAdd>(args, begin, end);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(PlainRowsImpl);
HWY_EXPORT(BlockRowsImpl);

namespace {

// Quantised rows as floats: slower than as integers, and without their rounding.
void DequantizedRows(const MatVecArgs& args, int64_t begin, int64_t end) {
  std::vector<float> values(static_cast<size_t>(args.in_features));
  MatVecArgs floats = args;
  floats.dtype = DType::kF32;
  floats.weight = reinterpret_cast<const std::byte*>(values.data());
  floats.row_bytes = 0;  // every row is the one in `values`
  for (int64_t row = begin; row < end; ++row) {
    DequantizeRow(args.dtype, args.weight + static_cast<size_t>(row) * args.row_bytes,
                  args.in_features, values.data());
    HWY_DYNAMIC_DISPATCH(PlainRowsImpl)(floats, row, row + 1);
  }
}

}  // namespace

void MatVecRows(const MatVecArgs& args, int64_t begin, int64_t end) {
  if (Traits(args.dtype).block_size == 1) {
    HWY_DYNAMIC_DISPATCH(PlainRowsImpl)(args, begin, end);
  } else if (args.quantized == nullptr) {
    DequantizedRows(args, begin, end);
  } else {
    HWY_DYNAMIC_DISPATCH(BlockRowsImpl)(args, begin, end);
  }
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
