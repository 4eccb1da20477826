#include "compute/convert.h"

#include <algorithm>

#include "compute/cpu/grain.h"
#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {
namespace {

void ConvertRun(const float* from, int64_t n, float* to) { std::copy(from, from + n, to); }
void ConvertRun(const float* from, int64_t n, BFloat16* to) {
  FloatToBFloat16(from, to, static_cast<size_t>(n));
}
void ConvertRun(const BFloat16* from, int64_t n, float* to) {
  BFloat16ToFloat(from, to, static_cast<size_t>(n));
}
void ConvertRun(const BFloat16* from, int64_t n, BFloat16* to) { std::copy(from, from + n, to); }

template <typename From, typename To>
void ConvertElements(CpuDevice& device, const ConvertArgs& args) {
  const auto* const from = args.from.As<From>();
  auto* const to = args.to.As<To>();
  if (args.factors.is_none() && args.from.is_contiguous() && args.to.is_contiguous()) {
    device.threads().ParallelFor(args.from.size(), kValuesPerRange,
                                 [&](int64_t begin, int64_t end, int) {
                                   ConvertRun(from + begin, end - begin, to + begin);
                                 });
    return;
  }
  const auto* const factors = args.factors.As<float>();
  const int64_t n_heads = args.from.dim(1);
  const int64_t head_dim = args.from.dim(2);
  device.threads().ParallelFor(
      args.from.dim(0), ElementwiseGrain(n_heads * head_dim), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t h = 0; h < n_heads; ++h) {
            const From* const row = from + t * args.from.stride(0) + h * args.from.stride(1);
            To* const out = to + t * args.to.stride(0) + h * args.to.stride(1);
            if (factors == nullptr) {
              ConvertRun(row, head_dim, out);
              continue;
            }
            for (int64_t i = 0; i < head_dim; ++i) {
              out[i] = static_cast<To>(static_cast<float>(row[i]) * factors[h]);
            }
          }
        }
      });
}

}  // namespace

absl::Status Convert(CpuDevice& device, const ConvertArgs& args) {
  const bool from_float = args.from.dtype() == DType::kF32;
  if (args.to.dtype() == DType::kF32) {
    from_float ? ConvertElements<float, float>(device, args)
               : ConvertElements<BFloat16, float>(device, args);
  } else {
    from_float ? ConvertElements<float, BFloat16>(device, args)
               : ConvertElements<BFloat16, BFloat16>(device, args);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
