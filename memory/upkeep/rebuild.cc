#include "memory/upkeep/rebuild.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "index/layer_index.h"
#include "memory/segment_files.h"
#include "memory/segments/sealer.h"
#include "memory/segments/segment_builder.h"
#include "memory/segments/stored_windows.h"
#include "memory/unfinished.h"

namespace fovea::memory {
namespace {

using storage::SegmentRecord;
using storage::Slot;

// What an interrupted rebuild left of generation `target`: the segments, from slot 0 on without a
// gap, that are as this rebuild would make them. The others are removed, with their files.
absl::StatusOr<std::vector<SegmentRecord>> ResumeSegments(Memory* memory, uint64_t target,
                                                          const storage::StoreSettings& wanted,
                                                          Slot next_slot) {
  ASSIGN_OR_RETURN(std::vector<SegmentRecord> segments, memory->store().Segments());
  std::erase_if(segments, [&](const auto& segment) { return segment.generation != target; });
  std::sort(segments.begin(), segments.end(),
            [](const auto& a, const auto& b) { return a.slot_begin < b.slot_begin; });
  Slot end = 0;
  std::vector<SegmentRecord> unusable;
  std::vector<SegmentRecord> finished;
  for (SegmentRecord& segment : segments) {
    const bool sound = std::all_of(segment.files.begin(), segment.files.end(),
                                   [&](const storage::SegmentFile& file) {
                                     return CheckSegmentFile(file, memory->index_folder()).ok();
                                   });
    if (segment.slot_begin == end && segment.slot_end <= next_slot && sound &&
        segment.requested_spec == wanted.index_spec && segment.fingerprint == wanted.fingerprint) {
      end = segment.slot_end;
      finished.push_back(std::move(segment));
    } else {
      unusable.push_back(std::move(segment));
    }
  }
  if (!unusable.empty()) {
    storage::Mutation mutation;
    for (const SegmentRecord& segment : unusable) mutation.DeleteSegment(segment.id);
    RETURN_IF_ERROR(memory->store().Commit(std::move(mutation)));
    RemoveSegmentFiles(unusable, memory->index_folder());
  }
  return finished;
}

}  // namespace

absl::StatusOr<RebuildResult> Rebuild(compute::Device& device, Memory* memory,
                                      const std::string& spec, const Progress& progress) {
  storage::DocumentStore& store = memory->store();
  ASSIGN_OR_RETURN(const std::optional<storage::StoreSettings> settings, store.Settings());
  if (!settings.has_value()) {
    return absl::FailedPreconditionError(
        StrCat(memory->folder(), ": nothing was ingested yet, so there is nothing to rebuild"));
  }
  storage::StoreSettings wanted = *settings;
  if (!spec.empty()) wanted.index_spec = spec;
  RETURN_IF_ERROR(index::ValidateSpec(wanted.index_spec, wanted.head_dim));

  // Nobody was told that any of it is stored, and who asks for new indexes does not wait for it.
  ASSIGN_OR_RETURN(const Unfinished unfinished, FindUnfinished(*memory->Current()));
  if (!unfinished.documents.empty()) {
    RETURN_IF_ERROR(memory->DeleteDocuments(unfinished.documents));
  }
  ASSIGN_OR_RETURN(const storage::Counters counters, store.ReadCounters());
  const uint64_t target = counters.generation + 1;
  ASSIGN_OR_RETURN(std::vector<SegmentRecord> segments,
                   ResumeSegments(memory, target, wanted, counters.next_slot));
  RebuildResult result;
  result.generation = target;
  result.segments_resumed = static_cast<int64_t>(segments.size());

  // A memory of a model without memory layers has texts and no keys: nothing to index by.
  const Slot end = wanted.n_mem_layers > 0 ? counters.next_slot : 0;
  Slot begin = segments.empty() ? 0 : segments.back().slot_end;
  std::vector<StoredWindow> windows;
  if (begin < end) {
    ASSIGN_OR_RETURN(windows, FindStoredWindows(store, begin, end));
  }
  while (begin < end) {
    RETURN_IF_ERROR(progress.Report({.stage = "rebuild",
                                     .done = static_cast<int64_t>(begin),
                                     .total = static_cast<int64_t>(end),
                                     .unit = "tokens"}));
    const Slot segment_end =
        end - begin <= kMaxSegmentSlots ? end : LastSlotBetween(windows, begin + kMaxSegmentSlots);
    ASSIGN_OR_RETURN(SegmentRecord segment,
                     BuildSegment(device, &store, memory->index_folder(), wanted,
                                  {.generation = target,
                                   .slot_begin = begin,
                                   .slot_end = segment_end,
                                   .spec = wanted.index_spec},
                                  progress));
    RETURN_IF_ERROR(CommitSegment(&store, memory->index_folder(), segment, {}));
    ++result.segments_built;
    begin = segment_end;
    segments.push_back(std::move(segment));
  }

  // Before the swap: interrupted here, the next call finds all segments finished and does only this
  // again.
  RETURN_IF_ERROR(memory->PrepareTextIndex(target, progress));
  RETURN_IF_ERROR(progress.CheckCancelled());
  RETURN_IF_ERROR(store.Compact());
  RETURN_IF_ERROR(progress.CheckCancelled());

  ASSIGN_OR_RETURN(std::vector<SegmentRecord> old, store.Segments());
  std::erase_if(old, [&](const auto& segment) { return segment.generation == target; });
  storage::Mutation swap;
  swap.PutGeneration(target);
  for (const SegmentRecord& segment : old) swap.DeleteSegment(segment.id);
  if (wanted.index_spec != settings->index_spec) swap.PutSettings(wanted);
  RETURN_IF_ERROR(store.Commit(std::move(swap)));
  RETURN_IF_ERROR(memory->Publish());
  RemoveSegmentFiles(old, memory->index_folder());

  for (const SegmentRecord& segment : segments) {
    result.needle_recall.push_back(segment.needle_recall);
    result.specs.push_back(segment.spec);
  }
  return result;
}

}  // namespace fovea::memory
