#include "memory/segments/sealer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "memory/segments/segment_builder.h"
#include "memory/segments/stored_windows.h"

namespace fovea::memory {
namespace {

using storage::Slot;

// Merges may pass kMaxSegmentSlots by what seals take more than kSealSlots: whole windows, and
// whatever a commit brought with them.
constexpr uint64_t kMaxMergedSlots = kMaxSegmentSlots + kMaxSegmentSlots / 2;

// The segments of the generation that queries see, by slot. DataLoss unless they lie end to end.
absl::StatusOr<std::vector<storage::SegmentRecord>> VisibleSegments(
    const storage::DocumentStore& store, uint64_t generation) {
  ASSIGN_OR_RETURN(std::vector<storage::SegmentRecord> segments, store.Segments());
  std::erase_if(segments, [&](const auto& segment) { return segment.generation != generation; });
  std::sort(segments.begin(), segments.end(),
            [](const auto& a, const auto& b) { return a.slot_begin < b.slot_begin; });
  Slot end = 0;
  for (const storage::SegmentRecord& segment : segments) {
    if (segment.slot_begin != end || segment.slot_end <= segment.slot_begin) {
      return absl::DataLossError(StrCat(
          "segment ", segment.id, " holds slots [", segment.slot_begin, ",", segment.slot_end,
          "), want one that begins at ", end, ": `fovea rebuild` makes the segments again"));
    }
    end = segment.slot_end;
  }
  return segments;
}

}  // namespace

int SegmentTier(uint64_t n_slots) {
  // Three quarters of a tier's size belong to it: the tail of an ingest, and what is merged with
  // it, are seldom whole, and a search takes some time for each segment, however small.
  n_slots += n_slots / 3;
  int tier = 0;
  for (uint64_t size = std::max(n_slots, kSealTailSlots); size < kSealSlots; size *= kMergeFactor) {
    --tier;
  }
  for (uint64_t size = n_slots / kSealSlots; size >= kMergeFactor; size /= kMergeFactor) ++tier;
  return tier;
}

size_t MergeCount(std::span<const uint64_t> n_slots) {
  FOVEA_CHECK(!n_slots.empty());
  size_t merged = 1;
  uint64_t size = n_slots.back();
  while (true) {
    const int tier = SegmentTier(size);
    size_t count = merged;
    uint64_t total = size;
    int n_pieces = 1;  // the merged ones count as one
    while (count < n_slots.size()) {
      const uint64_t next = n_slots[n_slots.size() - 1 - count];
      if (SegmentTier(next) > tier || total + next > kMaxMergedSlots) break;
      total += next;
      ++count;
      ++n_pieces;
    }
    if (n_pieces < kMergeFactor) return merged;
    merged = count;
    size = total;
  }
}

absl::StatusOr<std::optional<SealPlan>> PlanSealing(const storage::DocumentStore& store,
                                                    uint64_t min_slots) {
  ASSIGN_OR_RETURN(const storage::Counters counters, store.ReadCounters());
  ASSIGN_OR_RETURN(std::vector<storage::SegmentRecord> segments,
                   VisibleSegments(store, counters.generation));
  const Slot sealed_end = segments.empty() ? 0 : segments.back().slot_end;
  if (sealed_end > counters.next_slot) {
    return absl::DataLossError(StrCat("segments end at slot ", sealed_end,
                                      ", but the next slot is ", counters.next_slot,
                                      ": run `fovea verify`"));
  }
  if (counters.next_slot - sealed_end < min_slots) return std::nullopt;

  SealPlan plan{.generation = counters.generation,
                .slot_begin = sealed_end,
                .slot_end = counters.next_slot};  // commits end between windows
  if (plan.slot_end - plan.slot_begin > kMaxSegmentSlots) {
    ASSIGN_OR_RETURN(const std::vector<StoredWindow> windows,
                     FindStoredWindows(store, plan.slot_begin, plan.slot_end));
    plan.slot_end = LastSlotBetween(windows, plan.slot_begin + kMaxSegmentSlots);
  }
  std::vector<uint64_t> n_slots;
  for (const storage::SegmentRecord& segment : segments) {
    n_slots.push_back(segment.slot_end - segment.slot_begin);
  }
  n_slots.push_back(plan.slot_end - plan.slot_begin);
  const size_t n_replaced = MergeCount(n_slots) - 1;
  if (n_replaced > 0) {
    plan.merged.assign(segments.end() - static_cast<ptrdiff_t>(n_replaced), segments.end());
    plan.slot_begin = plan.merged.front().slot_begin;
  }
  return plan;
}

absl::Status SealAll(compute::Device& device, storage::DocumentStore* store,
                     const std::filesystem::path& index_folder, const Progress& progress,
                     uint64_t min_slots) {
  while (true) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    ASSIGN_OR_RETURN(const std::optional<SealPlan> plan, PlanSealing(*store, min_slots));
    if (!plan.has_value()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::optional<storage::StoreSettings> settings, store->Settings());
    if (!settings.has_value()) {
      return absl::DataLossError(StrCat(store->folder(),
                                        ": slots are taken, but the settings of "
                                        "the first ingest are missing: run `fovea verify`"));
    }
    ASSIGN_OR_RETURN(const storage::SegmentRecord record,
                     BuildSegment(device, store, index_folder, *settings,
                                  {.generation = plan->generation,
                                   .slot_begin = plan->slot_begin,
                                   .slot_end = plan->slot_end,
                                   .spec = settings->index_spec},
                                  progress));
    RETURN_IF_ERROR(CommitSegment(store, index_folder, record, plan->merged));
  }
}

absl::StatusOr<std::unique_ptr<BackgroundSealer>> BackgroundSealer::Start(
    storage::DocumentStore* store, std::filesystem::path index_folder,
    std::vector<uint64_t> damaged_segments, SealerOptions options) {
  if (options.device == nullptr) {
    ASSIGN_OR_RETURN(options.device, compute::Device::Create("cpu", 1));
  }
  return std::unique_ptr<BackgroundSealer>(
      new BackgroundSealer(store, std::move(index_folder), std::move(damaged_segments),
                           std::move(options.device), options.min_slots));
}

BackgroundSealer::BackgroundSealer(storage::DocumentStore* store,
                                   std::filesystem::path index_folder,
                                   std::vector<uint64_t> damaged_segments,
                                   std::unique_ptr<compute::Device> device, uint64_t min_slots)
    : store_(store),
      index_folder_(std::move(index_folder)),
      min_slots_(min_slots),
      device_(std::move(device)),
      damaged_segments_(std::move(damaged_segments)),
      pending_(!damaged_segments_.empty()),
      thread_([this] { Run(); }) {}

BackgroundSealer::~BackgroundSealer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BackgroundSealer::Notify() {
  {
    const std::lock_guard lock(mutex_);
    // What failed would fail again with each commit: it rests until somebody waits for it.
    if (status_.ok()) pending_ = true;
  }
  changed_.notify_all();
}

void BackgroundSealer::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || pending_; });
    if (stop_) return;
    pending_ = false;
    working_ = true;
    const uint64_t min_slots = std::exchange(is_waited_for_, false) ? kSealTailSlots : min_slots_;
    lock.unlock();
    const absl::Status status = Work(min_slots);
    lock.lock();
    working_ = false;
    last_update_.reset();
    if (!stop_) status_ = status;
    changed_.notify_all();
  }
}

absl::Status BackgroundSealer::Work(uint64_t min_slots) {
  const Progress progress(
      [this](const ProgressUpdate& update) {
        const std::lock_guard lock(mutex_);
        last_update_ = update;
      },
      &stop_);
  while (!damaged_segments_.empty()) {
    ASSIGN_OR_RETURN(const std::vector<storage::SegmentRecord> segments, store_->Segments());
    const auto damaged = std::find_if(segments.begin(), segments.end(), [&](const auto& segment) {
      return segment.id == damaged_segments_.back();
    });
    if (damaged != segments.end()) {
      ASSIGN_OR_RETURN(const storage::SegmentRecord rebuilt,
                       RebuildSegment(*device_, store_, index_folder_, *damaged, progress));
    }
    damaged_segments_.pop_back();
  }
  return SealAll(*device_, store_, index_folder_, progress, min_slots);
}

absl::Status BackgroundSealer::WaitUntilIdle(const Progress& progress) {
  std::unique_lock lock(mutex_);
  is_waited_for_ = true;
  pending_ = true;  // a look at the store is cheap, and makes a forgotten Notify harmless
  changed_.notify_all();
  while (pending_ || working_) {
    const std::optional<ProgressUpdate> update = last_update_;
    lock.unlock();
    RETURN_IF_ERROR(update.has_value() ? progress.Report(*update) : progress.CheckCancelled());
    lock.lock();
    if (!pending_ && !working_) break;
    // Wakes for the end; the time is how often progress is shown and cancellation looked for.
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }
  return std::exchange(status_, absl::OkStatus());
}

}  // namespace fovea::memory
