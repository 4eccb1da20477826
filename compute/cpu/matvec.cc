#include "compute/cpu/matvec.h"

#include <algorithm>
#include <cstring>

#include "base/float16.h"
#include "base/status.h"

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

// Scales are converted for this many blocks at once, into arrays on the stack.
constexpr int64_t kBlocksPerRun = 64;

// d (and m) of `n_blocks` ≤ kBlocksPerRun blocks, as floats; zeros up to a whole vector.
template <DType kType>
HWY_INLINE void LoadScales(const std::byte* blocks, int64_t n_blocks, float* HWY_RESTRICT scales,
                           float* HWY_RESTRICT offsets) {
  constexpr size_t kBlockBytes = kType == DType::kQ4_0 ? 18 : kType == DType::kQ4_1 ? 20 : 34;
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  HWY_ALIGN uint16_t half_scales[kBlocksPerRun];
  HWY_ALIGN uint16_t half_offsets[kBlocksPerRun];
  for (int64_t b = 0; b < n_blocks; ++b) {
    std::memcpy(&half_scales[b], blocks + b * kBlockBytes, 2);
    if constexpr (kType == DType::kQ4_1) {
      std::memcpy(&half_offsets[b], blocks + b * kBlockBytes + 2, 2);
    }
  }
  for (int64_t b = n_blocks; b % kLanes != 0; ++b) half_scales[b] = half_offsets[b] = 0;
  for (int64_t b = 0; b < n_blocks; b += kLanes) {
    const V scale =
        hn::PromoteTo(d, hn::Load(d16, reinterpret_cast<const hwy::float16_t*>(half_scales + b)));
    hn::Store(scale, d, scales + b);
    if constexpr (kType == DType::kQ4_1) {
      hn::Store(hn::PromoteTo(
                    d, hn::Load(d16, reinterpret_cast<const hwy::float16_t*>(half_offsets + b))),
                d, offsets + b);
    } else if constexpr (kType == DType::kQ4_0) {
      // d·(q − 8) = d·q − 8d: the same form as Q4_1.
      hn::Store(hn::Mul(scale, hn::Set(d, -8.0f)), d, offsets + b);
    }
  }
}

// <row, x[t]> for kTokens vectors.
template <DType kType, int kTokens>
HWY_INLINE void DotBlocks(const std::byte* row, const MatVecArgs& args, int64_t token,
                          float* HWY_RESTRICT result) {
  constexpr bool kNibbles = kType != DType::kQ8_0;
  constexpr size_t kHeaderBytes = kType == DType::kQ4_1 ? 4 : 2;
  constexpr size_t kBlockBytes = kHeaderBytes + (kNibbles ? 16 : 32);
  const D d;
  const hn::Rebind<int32_t, D> di;
  HWY_ALIGN float scales[kBlocksPerRun];
  HWY_ALIGN float offsets[kBlocksPerRun];
  V sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = hn::Zero(d);

  const int64_t n_blocks = args.in_features / 32;
  const float* x = args.x + token * args.in_features;
  for (int64_t first = 0; first < n_blocks; first += kBlocksPerRun) {
    const int64_t n = std::min(kBlocksPerRun, n_blocks - first);
    const std::byte* block = row + first * kBlockBytes;
    LoadScales<kType>(block, n, scales, offsets);
    if constexpr (kNibbles) {
      for (int64_t b = 0; b < n; b += kLanes) {
        const V offset = hn::Load(d, offsets + b);
        for (int t = 0; t < kTokens; ++t) {
          const float* sums = args.block_sums + (token + t) * args.block_sums_stride + first;
          sum[t] = hn::MulAdd(offset, hn::LoadU(d, sums + b), sum[t]);
        }
      }
    }
    for (int64_t b = 0; b < n; ++b, block += kBlockBytes) {
      const float* xb = x + (first + b) * 32;
      const V scale = hn::Set(d, scales[b]);
      V part[kTokens];
      if constexpr (kNibbles) {
        const hn::Rebind<uint8_t, D> d8;
        const auto* q = reinterpret_cast<const uint8_t*>(block + kHeaderBytes);
        for (int64_t i = 0; i < 16; i += kLanes) {
          const auto bytes = hn::LoadU(d8, q + i);
          const V low =
              hn::ConvertTo(d, hn::PromoteTo(di, hn::And(bytes, hn::Set(d8, uint8_t{15}))));
          const V high = hn::ConvertTo(d, hn::PromoteTo(di, hn::ShiftRight<4>(bytes)));
          for (int t = 0; t < kTokens; ++t) {
            const float* xt = xb + t * args.in_features + i;
            const V product = hn::Mul(low, hn::LoadU(d, xt));
            part[t] = i == 0 ? product : hn::Add(part[t], product);
            part[t] = hn::MulAdd(high, hn::LoadU(d, xt + 16), part[t]);
          }
        }
      } else {
        const hn::Rebind<int8_t, D> d8;
        const auto* q = reinterpret_cast<const int8_t*>(block + kHeaderBytes);
        for (int64_t i = 0; i < 32; i += kLanes) {
          const V value = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, q + i)));
          for (int t = 0; t < kTokens; ++t) {
            const V xt = hn::LoadU(d, xb + t * args.in_features + i);
            part[t] = i == 0 ? hn::Mul(value, xt) : hn::MulAdd(value, xt, part[t]);
          }
        }
      }
      for (int t = 0; t < kTokens; ++t) sum[t] = hn::MulAdd(scale, part[t], sum[t]);
    }
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
    if constexpr (kType == DType::kF32 || kType == DType::kF16 || kType == DType::kBF16) {
      DotPlain<kType, kTokens>(weight, args.x + token * args.in_features, args.in_features,
                               args.in_features, result);
    } else {
      DotBlocks<kType, kTokens>(weight, args, token, result);
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

void BlockSumsImpl(const float* x, int64_t n_tokens, int64_t in_features, int64_t stride,
                   float* sums) {
  const D d;
  const int64_t n_blocks = in_features / 32;
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t b = 0; b < n_blocks; ++b) {
      const float* block = x + t * in_features + b * 32;
      V sum = hn::LoadU(d, block);
      for (int64_t i = kLanes; i < 32; i += kLanes) sum = hn::Add(sum, hn::LoadU(d, block + i));
      sums[t * stride + b] = hn::GetLane(hn::SumOfLanes(d, sum));
    }
    std::fill(sums + t * stride + n_blocks, sums + (t + 1) * stride, 0.0f);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(MatVecRowsImpl);
HWY_EXPORT(BlockSumsImpl);

void MatVecRows(const MatVecArgs& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(MatVecRowsImpl)(args, begin, end);
}

bool NeedsBlockSums(DType dtype) { return dtype == DType::kQ4_0 || dtype == DType::kQ4_1; }

void BlockSums(const float* x, int64_t n_tokens, int64_t in_features, int64_t stride, float* sums) {
  HWY_DYNAMIC_DISPATCH(BlockSumsImpl)(x, n_tokens, in_features, stride, sums);
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
