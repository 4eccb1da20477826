#include "memory/search/search_plan.h"

#include <utility>

#include "memory/sinks.h"

namespace fovea::memory {
namespace {

uint64_t NumSelectable(const LiveWindow& window) {
  uint64_t n = window.n_tokens;
  for (const storage::TokenRange& range : window.sinks) n -= range.n_tokens;
  return n;
}

}  // namespace

absl::StatusOr<SearchPlan> PlanSearch(const Generation& generation, const QueryScope& scope,
                                      bool uses_indexes) {
  SearchPlan plan;
  ASSIGN_OR_RETURN(plan.windows, SelectWindows(generation, scope));
  const auto window_at = [&](uint32_t w) -> const LiveWindow& { return generation.windows[w]; };
  auto next = plan.windows.begin();
  for (const auto& segment : generation.segments) {
    const storage::SegmentRecord& record = segment->record;
    const auto first = next;
    while (next != plan.windows.end() && window_at(*next).slot_begin < record.slot_end) ++next;
    if (!uses_indexes || segment->layers.empty()) {
      plan.scanned.insert(plan.scanned.end(), first, next);
      continue;
    }
    uint64_t allowed_tokens = 0;
    for (auto w = first; w != next; ++w) allowed_tokens += NumSelectable(window_at(*w));
    if (allowed_tokens == 0) continue;
    IndexedSegment indexed{segment, {}};
    // Fewer tokens may be selected than the index holds: the rest must not come back.
    if (allowed_tokens != record.n_tokens) {
      indexed.allowed_bits.resize((record.slot_end - record.slot_begin + 63) / 64);
      for (auto w = first; w != next; ++w) {
        const LiveWindow& window = window_at(*w);
        const uint64_t begin = window.slot_begin - record.slot_begin;
        ForEachOther(window.sinks, window.n_tokens, [&](uint32_t from, uint32_t to) {
          for (uint64_t id = begin + from; id < begin + to; ++id) {
            indexed.allowed_bits[id >> 6] |= uint64_t{1} << (id & 63);
          }
        });
      }
    }
    plan.indexed.push_back(std::move(indexed));
  }
  plan.scanned.insert(plan.scanned.end(), next, plan.windows.end());
  return plan;
}

}  // namespace fovea::memory
