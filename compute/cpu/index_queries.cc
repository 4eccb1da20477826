#include "compute/index_queries.h"

#include <algorithm>
#include <cmath>

#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {

absl::Status IndexQueries(CpuDevice& /*device*/, const IndexQueriesArgs& args) {
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t group = n_heads / args.out.dim(0);
  const int64_t n_lists = args.out.dim(1);
  const int64_t index_dim = args.out.dim(2);
  const auto* const radii = static_cast<const float*>(args.radii.data());
  for (int64_t row = 0; row < args.out.dim(0) * n_lists; ++row) {
    const int64_t kv_head = row / n_lists;
    const int64_t query = row % n_lists / group;
    const int64_t head = kv_head * group + row % group;
    const float* const from = args.queries.As<float>() + (query * n_heads + head) * head_dim;
    float* const to = args.out.As<float>() + row * index_dim;
    float scale = 1.0f;
    if (radii != nullptr) {
      float norm2 = 0.0f;
      for (int64_t d = 0; d < head_dim; ++d) norm2 += from[d] * from[d];
      if (norm2 > 0.0f && std::isfinite(norm2)) scale = radii[kv_head] / std::sqrt(norm2);
    }
    for (int64_t d = 0; d < head_dim; ++d) to[d] = scale * from[d];
    std::fill(to + head_dim, to + index_dim, 0.0f);
    if (args.first_axis > 0) to[args.first_axis + kv_head] = args.axis_value;
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
