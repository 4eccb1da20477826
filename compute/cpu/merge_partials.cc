#include <algorithm>
#include <cmath>

#include "compute/cpu/attention_tile.h"
#include "compute/cpu/grain.h"
#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {

absl::Status MergePartials(CpuDevice& device, const MergePartialsArgs& args) {
  const int64_t n_rows = args.output.dim(0) * args.output.dim(1);
  const int64_t head_dim = args.output.dim(2);
  auto* const outputs = args.output.As<float>();
  auto* const lses = args.lse.As<float>();
  const auto* const others = args.other_output.As<float>();
  const auto* const other_lses = args.other_lse.As<float>();
  device.threads().ParallelFor(n_rows, ElementwiseGrain(head_dim),
                               [&](int64_t begin, int64_t end, int) {
                                 for (int64_t row = begin; row < end; ++row) {
                                   float* output = outputs + row * head_dim;
                                   const float* other = others + row * head_dim;
                                   const float lse = lses[row];
                                   const float other_lse = other_lses[row];
                                   const float maximum = std::max(lse, other_lse);
                                   if (maximum == kMinusInfinity) {
                                     std::fill(output, output + head_dim, 0.0f);
                                     continue;
                                   }
                                   const float weight = std::exp(lse - maximum);
                                   const float other_weight = std::exp(other_lse - maximum);
                                   const float total = weight + other_weight;
                                   const float factor = weight / total;
                                   const float other_factor = other_weight / total;
                                   // An empty partial weighs nothing, whatever its output holds.
                                   if (factor == 0.0f) {
                                     std::copy(other, other + head_dim, output);
                                   } else if (other_factor != 0.0f) {
                                     for (int64_t i = 0; i < head_dim; ++i) {
                                       output[i] = output[i] * factor + other[i] * other_factor;
                                     }
                                   }
                                   lses[row] = maximum + std::log(total);
                                 }
                               });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
