#include "compute/top_k_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compute/check_argument.h"
#include "compute/cpu/ops.h"
#include "compute/unavailable.h"

namespace fovea::compute {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

absl::Status CheckLists(std::string_view op, std::span<const TopK> kept, int64_t n_queries,
                        int64_t n_heads) {
  const auto n_kv_heads = static_cast<int64_t>(kept.size());
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0) {
    return absl::InvalidArgumentError(StrCat(op, ": ", n_heads, " heads and lists of ", n_kv_heads,
                                             " KV heads, want a multiple of them"));
  }
  for (const TopK& list : kept) {
    const int64_t want = n_queries * (n_heads / n_kv_heads);
    if (list.n_queries() == want && list.top_k() == kept[0].top_k()) continue;
    return absl::InvalidArgumentError(StrCat(op, ": the top ", list.top_k(), " of ",
                                             list.n_queries(), " queries, want the top ",
                                             kept[0].top_k(), " of ", want, " for each KV head"));
  }
  return absl::OkStatus();
}

}  // namespace

float LogAddExp(float a, float b) {
  if (a == kMinusInfinity) return b;
  if (b == kMinusInfinity) return a;
  const float high = std::max(a, b);
  return high + std::log1p(std::exp(std::min(a, b) - high));
}

float LogSumExp(std::span<const ScoredId> sorted, float scale) {
  if (sorted.empty()) return kMinusInfinity;
  const float high = sorted.front().score * scale;
  float sum = 0.0f;
  for (const ScoredId& hit : sorted) sum += std::exp(hit.score * scale - high);
  return high + std::log(sum);
}

absl::Status TopKAttention(Device& device, const TopKAttentionArgs& args) {
  constexpr std::string_view kOp = "TopKAttention";
  RETURN_IF_ERROR(
      CheckArgument(device, kOp, "output", args.output, kFloat32, {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = args.output.dim(0);
  const int64_t n_heads = args.output.dim(1);
  RETURN_IF_ERROR(CheckArgument(device, kOp, "lse", args.lse, kFloat32, {n_queries, n_heads}));
  RETURN_IF_ERROR(CheckLists(kOp, args.kept, n_queries, n_heads));
  const auto n_places = static_cast<int64_t>(args.places.size());
  if (n_places != n_queries * n_heads * args.kept[0].top_k()) {
    return absl::InvalidArgumentError(StrCat(kOp, ": ", n_places, " places, want ", n_queries,
                                             " x ", n_heads, " x ", args.kept[0].top_k()));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::TopKAttention(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable(kOp);
  }
  return absl::OkStatus();
}

absl::Status TopKWeights(Device& device, const TopKWeightsArgs& args) {
  constexpr std::string_view kOp = "TopKWeights";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "lse", args.lse, kFloat32, {kAnySize, kAnySize}));
  const int64_t n_queries = args.lse.dim(0);
  const int64_t n_heads = args.lse.dim(1);
  if (!args.other_lse.is_none()) {
    RETURN_IF_ERROR(
        CheckArgument(device, kOp, "other_lse", args.other_lse, kFloat32, {n_queries, n_heads}));
  }
  RETURN_IF_ERROR(CheckLists(kOp, args.kept, n_queries, n_heads));
  RETURN_IF_ERROR(CheckArgument(device, kOp, "weights", args.weights, kFloat32,
                                {n_queries, n_heads, args.kept[0].top_k()}));
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::TopKWeights(cpu::AsCpu(device), args);
    case DeviceKind::kCuda:
      return Unavailable(kOp);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
