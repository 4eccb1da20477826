#include "memory/statistics.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>

#include "index/layer_index.h"
#include "memory/residency_plan.h"
#include "memory/resident_entries.h"
#include "memory/unfinished.h"

namespace fovea::memory {
namespace {

uint64_t FileBytes(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<uint64_t>(size);
}

}  // namespace

SearchStats ComputeSearchStats(const Memory& memory, const compute::Device& device) {
  const std::shared_ptr<const Generation> generation = memory.Current();
  SearchStats stats;
  stats.faiss = StrCat(index::FaissVersion(), index::FaissHasGpuPart() ? ", CPU and GPU" : ", CPU");
  const bool has_index = std::any_of(generation->segments.begin(), generation->segments.end(),
                                     [](const auto& segment) { return !segment->layers.empty(); });
  const bool is_dense =
      generation->settings.has_value() && generation->settings->encoding == "reference";
  stats.by = has_index && !is_dense ? "indexes" : "keys";
  if (device.is_host_memory() || !generation->settings.has_value()) return stats;
  const absl::StatusOr<ResidencyPlan> plan = PlanResidency(
      *generation, /*is_approximate=*/!is_dense, generation->source->resident().Limits(device));
  if (is_dense && plan.ok() && plan->values != ValuePlace::kDevice) {
    stats.note = "dense attention reads all values, which do not fit the GPU";
    return stats;
  }
  if (!plan.ok()) {
    stats.note = std::string(plan.status().message());
    return stats;
  }
  stats.is_on_gpu = true;
  stats.by = !plan->uses_codes ? "keys" : plan->index_bytes > 0 ? "indexes" : "codes";
  stats.gpu_code_bytes = plan->code_bytes;
  stats.gpu_index_bytes = plan->index_bytes;
  stats.gpu_key_bytes = plan->key_bytes + (plan->has_pinned_keys ? 0 : plan->coded_key_bytes);
  const auto values_in = [&](ValuePlace place) {
    return plan->values == place ? plan->value_bytes : 0;
  };
  stats.gpu_value_bytes = values_in(ValuePlace::kDevice);
  stats.pinned_key_bytes = plan->has_pinned_keys ? plan->coded_key_bytes : 0;
  stats.pinned_value_bytes = values_in(ValuePlace::kPinned);
  stats.stored_value_bytes = values_in(ValuePlace::kStore);
  return stats;
}

absl::StatusOr<Stats> ComputeStats(Memory& memory) {
  const std::shared_ptr<const Generation> generation = memory.Current();
  Stats stats;
  ASSIGN_OR_RETURN(stats.format_version, memory.store().FormatVersion());
  stats.documents = static_cast<int64_t>(generation->documents.size());
  std::map<std::string, int64_t> collections;
  for (const storage::DocumentRecord& document : generation->documents) {
    for (const std::string& name : document.collections()) ++collections[name];
  }
  stats.collections.assign(collections.begin(), collections.end());
  stats.tokens = generation->n_tokens;
  stats.slots = generation->next_slot;
  ASSIGN_OR_RETURN(const Unfinished unfinished, FindUnfinished(*generation));
  stats.unfinished_documents = static_cast<int64_t>(unfinished.documents.size());
  stats.unfinished_tokens = unfinished.n_tokens;
  stats.deleted_slots = generation->next_slot - generation->n_tokens - unfinished.n_tokens;
  ASSIGN_OR_RETURN(const storage::BytesByKind bytes, memory.store().SizeByKind());
  stats.text_bytes = bytes.text;
  stats.block_bytes = bytes.blocks;
  stats.index_bytes = FileBytes(memory.text_index_path());
  uint64_t growing = generation->n_tokens;
  for (const auto& segment : generation->segments) {
    uint64_t tokens = 0;
    for (const LiveWindow& window : generation->windows) {
      if (window.slot_begin >= segment->record.slot_begin &&
          window.slot_begin < segment->record.slot_end) {
        tokens += window.n_tokens;
      }
    }
    growing -= tokens;
    for (const storage::SegmentFile& file : segment->record.files) {
      stats.index_bytes += file.size_bytes;
    }
    stats.segments.push_back(
        {tokens, segment->record.spec,
         segment->damage.empty() ? "sealed" : StrCat("damaged: ", segment->damage),
         segment->record.needle_recall, segment->record.n_candidates});
  }
  if (growing > 0) stats.segments.push_back({growing, "exact", "growing", {}, 0});
  return stats;
}

}  // namespace fovea::memory
