#include "memory/generation_builder.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "memory/segment_files.h"

namespace fovea::memory {
namespace {

absl::StatusOr<std::shared_ptr<const Generation>> ReadGeneration(
    const std::shared_ptr<OpenedVersion>& source, const Generation* previous,
    const storage::Counters& counters, const IngestView& view) {
  const storage::DocumentStore& store = source->store();
  auto generation = std::make_shared<Generation>();
  generation->source = source;
  generation->hold = store.HoldWindows();
  ASSIGN_OR_RETURN(generation->settings, source->ReadSettings());
  generation->epoch = counters.epoch;
  generation->generation = counters.generation;
  generation->next_slot = counters.next_slot;

  std::map<storage::DocumentNumber, uint32_t> index_of;
  RETURN_IF_ERROR(store.ForEachDocument([&](const storage::DocumentRecord& document) {
    const auto named_in = [&](const std::vector<storage::DocumentNumber>& numbers) {
      return std::find(numbers.begin(), numbers.end(), document.number) != numbers.end();
    };
    if (document.complete ? !named_in(view.without) : named_in(view.with)) {
      index_of[document.number] = static_cast<uint32_t>(generation->documents.size());
      generation->documents.push_back(document);
    }
    return absl::OkStatus();
  }));
  absl::flat_hash_set<Slot> stored;
  std::vector<uint64_t> n_windows(generation->documents.size());
  RETURN_IF_ERROR(store.ForEachLink([&](const storage::WindowLink& link) {
    stored.insert(link.slot_begin);
    const auto document = index_of.find(link.document);
    if (document == index_of.end()) return absl::OkStatus();
    ++n_windows[document->second];
    generation->windows.push_back({.slot_begin = link.slot_begin,
                                   .n_tokens = link.n_tokens,
                                   .document = document->second,
                                   .byte_begin = link.byte_begin,
                                   .ordinal = link.ordinal,
                                   .sinks = link.repeats});
    generation->n_tokens += link.n_tokens;
    return absl::OkStatus();
  }));
  // A part of a document must not pass for the whole, whatever became of the rest.
  for (size_t i = 0; i < n_windows.size(); ++i) {
    const storage::DocumentRecord& document = generation->documents[i];
    if (!document.complete || n_windows[i] == document.n_windows) continue;
    return absl::DataLossError(StrCat(source->memory_folder(), ": document ", document.id, " (",
                                      document.source(), ") has ", n_windows[i], " windows, want ",
                                      document.n_windows, ": run `fovea verify --repair`"));
  }
  generation->n_windows_stored = stored.size();
  std::sort(generation->windows.begin(), generation->windows.end(),
            [](const LiveWindow& a, const LiveWindow& b) { return a.slot_begin < b.slot_begin; });

  ASSIGN_OR_RETURN(std::vector<storage::SegmentRecord> records, store.Segments());
  for (storage::SegmentRecord& record : records) {
    if (record.generation != counters.generation) continue;
    std::shared_ptr<const Segment> segment;
    if (previous != nullptr) {
      for (const auto& known : previous->segments) {
        if (known->record.id == record.id && known->damage.empty()) segment = known;
      }
    }
    if (segment == nullptr) {
      segment = std::make_shared<const Segment>(OpenSegment(record, source->index_folder()));
    }
    generation->segments.push_back(std::move(segment));
  }
  std::sort(
      generation->segments.begin(), generation->segments.end(),
      [](const auto& a, const auto& b) { return a->record.slot_begin < b->record.slot_begin; });
  if (!generation->segments.empty()) {
    generation->sealed_end = generation->segments.back()->record.slot_end;
  }
  return generation;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Generation>> BuildGeneration(
    const std::shared_ptr<OpenedVersion>& source, const Generation* previous,
    const IngestView& view) {
  // The store is read in several walks. Where a commit comes between them, or a reader's view moves
  // on, they tell of different states.
  constexpr int kMaxAttempts = 20;
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(const storage::Counters counters, source->store().ReadCounters());
    absl::StatusOr<std::shared_ptr<const Generation>> generation =
        ReadGeneration(source, previous, counters, view);
    ASSIGN_OR_RETURN(const storage::Counters after, source->store().ReadCounters());
    if (after.epoch == counters.epoch || attempt == kMaxAttempts) return generation;
  }
}

}  // namespace fovea::memory
