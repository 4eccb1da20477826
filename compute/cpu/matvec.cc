#include "compute/cpu/matvec.h"

#include <algorithm>
#include <cstring>

#include "base/float16.h"
#include "base/status.h"
#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/matvec.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Half a block (16 values) is the widest vector that the layouts of blocks suit.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = hn::MaxLanes(D());

// The half at `bytes` as a float in every lane.
HWY_INLINE V BroadcastHalf(const std::byte* bytes) {
  const D d;
  const hn::Rebind<uint16_t, D> du16;
  const hn::Rebind<hwy::float16_t, D> d16;
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return hn::PromoteTo(d, hn::BitCast(d16, hn::Set(du16, bits)));
}

// Q4_0 and Q4_1: nibbles → weights of one block.
template <DType kType>
class NibbleWeights {
 public:
  static constexpr size_t kHeaderBytes = kType == DType::kQ4_1 ? 4 : 2;
  static constexpr size_t kBlockBytes = kHeaderBytes + 16;

  explicit HWY_INLINE NibbleWeights(const std::byte* block) {
    const D d;
    scale_ = BroadcastHalf(block);
    // d·(q − 8) = d·q − 8d, exactly: halves have 11 bits.
    offset_ = kType == DType::kQ4_1 ? BroadcastHalf(block + 2) : hn::Mul(scale_, hn::Set(d, -8.0f));
    if constexpr (kHasTable) table_ = hn::MulAdd(hn::Iota(d, 0.0f), scale_, offset_);
  }

  template <class VI>
  HWY_INLINE V operator()(VI q) const {
    const D d;
    if constexpr (kHasTable) {
      return hn::TableLookupLanes(table_, hn::IndicesFromVec(d, q));
    } else {
      return hn::MulAdd(hn::ConvertTo(d, q), scale_, offset_);
    }
  }

 private:
  // Sixteen lanes hold all weights that a nibble may stand for: one permutation instead of a
  // conversion and a product.
  static constexpr bool kHasTable = kLanes == 16;

  V scale_;
  V offset_;
  V table_;
};

// <row, x[t]> for kTokens vectors.
template <DType kType, int kTokens>
HWY_INLINE void DotNibbles(const std::byte* row, const float* x, int64_t n, int64_t x_stride,
                           float* HWY_RESTRICT result) {
  using Weights = NibbleWeights<kType>;
  const D d;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint8_t, D> d8;
  const auto low_bits = hn::Set(di, 15);
  V low_sum[kTokens];
  V high_sum[kTokens];
  for (int t = 0; t < kTokens; ++t) low_sum[t] = high_sum[t] = hn::Zero(d);
  for (const float* const end = x + n; x < end; x += 32, row += Weights::kBlockBytes) {
    const Weights weights(row);
    const auto* bytes = reinterpret_cast<const uint8_t*>(row + Weights::kHeaderBytes);
    for (int64_t i = 0; i < 16; i += kLanes) {
      const auto q = hn::PromoteTo(di, hn::LoadU(d8, bytes + i));
      const V low = weights(hn::And(q, low_bits));
      const V high = weights(hn::ShiftRight<4>(q));
      for (int t = 0; t < kTokens; ++t) {
        const float* xt = x + t * x_stride + i;
        low_sum[t] = hn::MulAdd(low, hn::LoadU(d, xt), low_sum[t]);
        high_sum[t] = hn::MulAdd(high, hn::LoadU(d, xt + 16), high_sum[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    result[t] = hn::GetLane(hn::SumOfLanes(d, hn::Add(low_sum[t], high_sum[t])));
  }
}

template <int kTokens>
HWY_INLINE void DotQ8_0(const std::byte* row, const float* x, int64_t n, int64_t x_stride,
                        float* HWY_RESTRICT result) {
  constexpr size_t kBlockBytes = 34;
  const D d;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<int8_t, D> d8;
  V sum[kTokens];
  for (V& s : sum) s = hn::Zero(d);
  for (const float* const end = x + n; x < end; x += 32, row += kBlockBytes) {
    const V scale = BroadcastHalf(row);
    const auto* q = reinterpret_cast<const int8_t*>(row + 2);
    V block_sum[kTokens];
    for (int64_t i = 0; i < 32; i += kLanes) {
      const V value = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, q + i)));
      for (int t = 0; t < kTokens; ++t) {
        const V xt = hn::LoadU(d, x + t * x_stride + i);
        block_sum[t] = i == 0 ? hn::Mul(value, xt) : hn::MulAdd(value, xt, block_sum[t]);
      }
    }
    for (int t = 0; t < kTokens; ++t) sum[t] = hn::MulAdd(scale, block_sum[t], sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) result[t] = hn::GetLane(hn::SumOfLanes(d, sum[t]));
}

template <DType kType>
HWY_INLINE V LoadPlain(const std::byte* row, int64_t i) {
  const D d;
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

template <DType kType, int kTokens>
HWY_INLINE void DotPlain(const std::byte* row, const float* x, int64_t n, int64_t x_stride,
                         float* HWY_RESTRICT result) {
  // Sums that depend on each other wait for the latency of the addition; four of them do not.
  constexpr int kChains = kTokens >= 3 ? 1 : 4;
  const D d;
  V sum[kTokens * kChains];
  for (V& s : sum) s = hn::Zero(d);
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    for (int c = 0; c < kChains; ++c) {
      const V w = LoadPlain<kType>(row, i + c * kLanes);
      for (int t = 0; t < kTokens; ++t) {
        V& s = sum[t * kChains + c];
        s = hn::MulAdd(w, hn::LoadU(d, x + t * x_stride + i + c * kLanes), s);
      }
    }
  }
  float tail[kTokens] = {};
  if (i < n) {
    float values[kChains * kLanes];
    constexpr int64_t kValueBytes = kType == DType::kF32 ? 4 : 2;
    DequantizeRow(kType, row + i * kValueBytes, n - i, values);
    for (int t = 0; t < kTokens; ++t) {
      for (int64_t j = i; j < n; ++j) tail[t] += values[j - i] * x[t * x_stride + j];
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    V s = sum[t * kChains];
    for (int c = 1; c < kChains; ++c) s = hn::Add(s, sum[t * kChains + c]);
    result[t] = hn::GetLane(hn::SumOfLanes(d, s)) + tail[t];
  }
}

template <DType kType, int kTokens>
HWY_NOINLINE void Rows(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const std::byte* weight = args.weight + static_cast<size_t>(row) * args.row_bytes;
    float result[kTokens];
    const float* x = args.x + token * args.in_features;
    const int64_t n = args.in_features;
    if constexpr (kType == DType::kQ4_0 || kType == DType::kQ4_1) {
      DotNibbles<kType, kTokens>(weight, x, n, n, result);
    } else if constexpr (kType == DType::kQ8_0) {
      DotQ8_0<kTokens>(weight, x, n, n, result);
    } else {
      DotPlain<kType, kTokens>(weight, x, n, n, result);
    }
    if (args.lora_b != nullptr) {
      float update[kTokens];
      DotPlain<DType::kF32, kTokens>(
          reinterpret_cast<const std::byte*>(args.lora_b + row * args.lora_rank),
          args.lora_u + token * args.lora_rank, args.lora_rank, args.lora_rank, update);
      for (int t = 0; t < kTokens; ++t) result[t] += update[t];
    }
    const float bias = args.bias != nullptr ? args.bias[row] : 0.0f;
    for (int t = 0; t < kTokens; ++t) {
      float* out = args.out + (token + t) * args.out_features + row;
      *out = result[t] + bias + (args.add_to_out ? *out : 0.0f);
    }
  }
}

template <DType kType>
void RowsOfType(const MatVecArgs& args, int64_t begin, int64_t end) {
  static_assert(kMatVecTokensPerPass == 4);
  int64_t token = 0;
  for (; token + 4 <= args.n_tokens; token += 4) Rows<kType, 4>(args, token, begin, end);
  switch (args.n_tokens - token) {
    case 1:
      return Rows<kType, 1>(args, token, begin, end);
    case 2:
      return Rows<kType, 2>(args, token, begin, end);
    case 3:
      return Rows<kType, 3>(args, token, begin, end);
    default:
      return;
  }
}

void MatVecRowsImpl(const MatVecArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::kF32:
      return RowsOfType<DType::kF32>(args, begin, end);
    case DType::kF16:
      return RowsOfType<DType::kF16>(args, begin, end);
    case DType::kBF16:
      return RowsOfType<DType::kBF16>(args, begin, end);
    case DType::kQ4_0:
      return RowsOfType<DType::kQ4_0>(args, begin, end);
    case DType::kQ4_1:
      return RowsOfType<DType::kQ4_1>(args, begin, end);
    case DType::kQ8_0:
      return RowsOfType<DType::kQ8_0>(args, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(MatVecRowsImpl);

void MatVecRows(const MatVecArgs& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(MatVecRowsImpl)(args, begin, end);
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
