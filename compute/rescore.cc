#include "compute/rescore.h"

#include "compute/check_argument.h"
#include "compute/cpu/key_scan.h"
#include "compute/unavailable.h"

namespace fovea::compute {

absl::Status Rescore(Device& device, const RescoreArgs& args, std::span<TopK> best) {
  constexpr std::string_view kOp = "Rescore";
  RETURN_IF_ERROR(CheckArgument(device, kOp, "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}));
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  const auto n_kv_heads = static_cast<int64_t>(best.size());
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0) {
    return absl::InvalidArgumentError(StrCat(kOp, ": ", n_heads, " heads and lists of ", n_kv_heads,
                                             " KV heads, want a multiple of them"));
  }
  for (const TopK& list : best) {
    const int64_t want = n_queries * (n_heads / n_kv_heads);
    if (list.n_queries() == want) continue;
    return absl::InvalidArgumentError(
        StrCat(kOp, ": the result holds ", list.n_queries(), " queries, want ", want));
  }
  for (const Candidates& found : args.candidates) {
    const auto want = static_cast<size_t>(n_queries * n_heads * found.n_per_row);
    if (found.ids.size() == want && found.places.size() == want) continue;
    return absl::InvalidArgumentError(StrCat(kOp, ": ", found.ids.size(), " ids and ",
                                             found.places.size(), " places, want ", want));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::Rescore(cpu::AsCpu(device), args, best);
    case DeviceKind::kCuda:
      return Unavailable(kOp);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
