#include "model/memory_source.h"

#include <cstddef>

namespace fovea::model {
namespace {

void AttendAlone(std::span<MemoryRequest> requests) {
  for (MemoryRequest& request : requests) {
    request.status = request.memory->Attend(request.query, request.output, request.lse);
  }
}

}  // namespace

void MemorySource::AttendTogether(std::span<MemoryRequest> requests) { AttendAlone(requests); }

bool FollowsInMemory(const MemoryRequest& before, const MemoryRequest& next) {
  const MemoryQuery& a = before.query;
  const MemoryQuery& b = next.query;
  const int64_t n_rows = a.n_queries * a.n_heads;
  const auto follows = [&](const float* first, const float* second, int64_t width) {
    return first == nullptr ? second == nullptr : second == first + n_rows * width;
  };
  return a.memory_layer == b.memory_layer && a.n_heads == b.n_heads &&
         a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim && a.scale == b.scale &&
         !a.is_step && !b.is_step && follows(a.queries, b.queries, a.head_dim) &&
         follows(a.local_lse, b.local_lse, 1) && follows(before.output, next.output, a.head_dim) &&
         follows(before.lse, next.lse, 1);
}

void AttendInRuns(
    std::span<MemoryRequest> requests,
    absl::FunctionRef<bool(const MemoryRequest& before, const MemoryRequest& next)> can_join,
    absl::FunctionRef<void(std::span<MemoryRequest>)> attend) {
  for (size_t begin = 0; begin < requests.size();) {
    size_t end = begin + 1;
    while (end < requests.size() && can_join(requests[end - 1], requests[end])) ++end;
    const std::span<MemoryRequest> run = requests.subspan(begin, end - begin);
    run.size() == 1 ? AttendAlone(run) : attend(run);
    begin = end;
  }
}

}  // namespace fovea::model
