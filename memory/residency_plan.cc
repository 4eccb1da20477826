#include "memory/residency_plan.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/system_memory.h"
#include "compute/code_scan.h"
#include "compute/memory_attention.h"

namespace fovea::memory {
namespace {

// What a model's steps and the searches themselves take beside the entries.
constexpr size_t kMarginBytes = size_t{1} << 30;
// Of an index that is no scan of codes.
constexpr int kBits = 4;
constexpr int kCandidates = 128;

int BitsOf(const std::string& spec) {
  for (const int bits : {2, 4, 8}) {
    if (spec == StrCat("Scan", bits)) return bits;
  }
  return 0;
}

std::vector<SlabShape> SlabsOf(const Generation& generation, const compute::Device* device) {
  const int n_layers = generation.settings->n_mem_layers;
  std::vector<SlabShape> slabs;
  auto window = generation.windows.begin();
  const auto add = [&](SlabShape slab) {
    for (; window != generation.windows.end() && window->slot_begin < slab.slot_end; ++window) {
      slab.n_tokens += window->n_tokens;
    }
    if (slab.n_tokens > 0) slabs.push_back(std::move(slab));
  };
  const auto none = std::vector<int>(static_cast<size_t>(n_layers));
  const auto shape = [&](Slot slot_begin, Slot slot_end) {
    return SlabShape{.slot_begin = slot_begin,
                     .slot_end = slot_end,
                     .bits = none,
                     .n_candidates = none,
                     .index_bytes = std::vector<size_t>(none.size()),
                     .n_probe = none};
  };
  Slot end = 0;
  for (const auto& segment : generation.segments) {
    const storage::SegmentRecord& record = segment->record;
    add(shape(end, record.slot_begin));
    SlabShape slab = shape(record.slot_begin, record.slot_end);
    slab.segment_id = record.id;
    for (size_t layer = 0; layer < segment->layers.size() && layer < none.size(); ++layer) {
      const index::LayerIndex& index = *segment->layers[layer];
      const int bits = BitsOf(index.spec());
      const bool is_judged = index.effort().n_candidates > 0;
      const int judged = is_judged ? index.effort().n_candidates : record.n_candidates;
      if (device != nullptr) slab.index_bytes[layer] = index.DeviceBytes(*device);
      if (slab.index_bytes[layer] > 0) {
        // As they are numbered on the device.
        slab.index_bytes[layer] += static_cast<size_t>(index.n_keys()) * sizeof(int32_t);
        slab.n_candidates[layer] = judged > 0 ? judged : kCandidates;
        slab.n_probe[layer] = is_judged ? index.effort().n_probe : record.n_probe;
        continue;
      }
      slab.bits[layer] = bits > 0 ? bits : kBits;
      slab.n_candidates[layer] = bits > 0 && judged > 0 ? judged : std::max(judged, kCandidates);
    }
    add(std::move(slab));
    end = record.slot_end;
  }
  add(shape(end, std::max(generation.next_slot, end)));
  return slabs;
}

std::string SizeText(size_t size_bytes) {
  const auto bytes = static_cast<double>(size_bytes);
  return bytes < 1e9 ? absl::StrFormat("%.1f MB", bytes / 1e6)
                     : absl::StrFormat("%.1f GB", bytes / 1e9);
}

}  // namespace

ResidencyLimits LimitsOf(const compute::Device& device, HeldBytes held) {
  ResidencyLimits limits;
  limits.device = &device;
  limits.pinned_bytes = (GetSystemMemory().available_bytes + held.pinned) / 2;
  const compute::DeviceMemory memory = device.memory();
  const size_t free_bytes = memory.total_bytes == 0
                                ? std::numeric_limits<size_t>::max()  // allocating will tell
                                : memory.free_bytes + held.on_device;
  limits.device_bytes =
      memory.total_bytes == 0 ? free_bytes : free_bytes - std::min(kMarginBytes, free_bytes / 8);
  if (const auto given = device.entry_limit_bytes(); given.has_value() && *given < free_bytes) {
    limits.device_bytes = *given;
    limits.is_given = true;
  }
  return limits;
}

absl::StatusOr<ResidencyPlan> PlanResidency(const Generation& generation, bool is_approximate,
                                            const ResidencyLimits& limits) {
  FOVEA_CHECK(generation.settings.has_value());
  const storage::StoreSettings& settings = *generation.settings;
  ResidencyPlan plan;
  plan.slabs = SlabsOf(generation, limits.device);
  if (plan.slabs.size() >= static_cast<size_t>(compute::kMaxMemoryParts)) {
    // One is left for a conversation.
    return absl::ResourceExhaustedError(
        StrCat("the memory has ", plan.slabs.size(), " segments, a GPU searches at most ",
               compute::kMaxMemoryParts - 1, ": `fovea rebuild` makes fewer of them"));
  }
  const auto token_bytes = static_cast<size_t>(settings.n_kv_heads * settings.head_dim) *
                           EntryBytes(settings.entry_type);
  ResidencyPlan coded = plan;
  coded.uses_codes = true;
  int64_t n_tokens = 0;
  for (const SlabShape& slab : plan.slabs) {
    n_tokens += slab.n_tokens;
    const size_t half_bytes = static_cast<size_t>(slab.n_tokens) * token_bytes;
    for (size_t layer = 0; layer < slab.bits.size(); ++layer) {
      const int bits = slab.bits[layer];
      const size_t index_bytes = slab.index_bytes[layer];
      plan.key_bytes += half_bytes;
      plan.value_bytes += half_bytes;
      coded.value_bytes += half_bytes;
      coded.index_bytes += index_bytes;
      (bits > 0 || index_bytes > 0 ? coded.coded_key_bytes : coded.key_bytes) += half_bytes;
      if (bits == 0) continue;
      const int64_t block_bytes = compute::KeyCoder::NumLines(bits, settings.head_dim) * 64 +
                                  compute::kCodeBlockKeys * int64_t{sizeof(BFloat16)};
      coded.code_bytes += static_cast<size_t>(
          settings.n_kv_heads * compute::KeyCoder::NumBlocks(slab.n_tokens) * block_bytes);
    }
  }
  std::vector<ResidencyPlan> choices;
  const auto choose = [&](ResidencyPlan choice, bool has_pinned_keys, ValuePlace values) {
    choice.has_pinned_keys = has_pinned_keys;
    choice.values = values;
    choices.push_back(std::move(choice));
  };
  const bool has_codes = is_approximate && coded.code_bytes + coded.index_bytes > 0;
  const bool may_read_keys = !has_codes || n_tokens <= kExactOnDeviceTokens;
  if (may_read_keys) {
    choose(plan, false, ValuePlace::kDevice);
    choose(plan, false, ValuePlace::kPinned);
  }
  if (has_codes) {
    choose(coded, false, ValuePlace::kDevice);
    choose(coded, false, ValuePlace::kPinned);
    choose(coded, true, ValuePlace::kPinned);
  }
  // Reading the store for each search takes longer than anything that is read in place.
  if (may_read_keys) choose(plan, false, ValuePlace::kStore);
  if (has_codes) {
    choose(coded, false, ValuePlace::kStore);
    choose(coded, true, ValuePlace::kStore);
  }
  for (ResidencyPlan& choice : choices) {
    if (choice.DeviceBytes() <= limits.device_bytes &&
        choice.PinnedBytes() <= limits.pinned_bytes) {
      return std::move(choice);
    }
  }
  const ResidencyPlan& least = choices.back();
  const bool wants_pinned = least.PinnedBytes() > 0;
  std::string message = StrCat(
      "the memory does not fit the GPU: ", n_tokens, " tokens want ",
      SizeText(choices.front().DeviceBytes()), " of it, or ", SizeText(least.DeviceBytes()),
      wants_pinned ? StrCat(" and ", SizeText(least.PinnedBytes()), " of the host's memory")
                   : " without the values",
      "; there are ", SizeText(limits.device_bytes), limits.is_given ? " (--gpu-memory)" : "",
      wants_pinned ? StrCat(" and ", SizeText(limits.pinned_bytes)) : "", "; ");
  if (!is_approximate && coded.code_bytes + coded.index_bytes > 0)
    message += "ask with --mode approximate, ";
  message += StrCat(limits.is_given ? "give it more, " : "end other programs that use the GPU, ",
                    "take another GPU (--device cuda:N), or --device cpu");
  return absl::ResourceExhaustedError(message);
}

}  // namespace fovea::memory
