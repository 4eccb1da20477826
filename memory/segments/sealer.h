// Turns the growing segment into sealed ones as it fills, and merges small sealed segments into
// larger ones, in the background of an ingest.
//
//   ASSIGN_OR_RETURN(auto sealer, BackgroundSealer::Start(&store, index_folder, {}));
//   …commit…; sealer->Notify();
//   RETURN_IF_ERROR(sealer->WaitUntilIdle(progress));
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "storage/document_store.h"

namespace fovea::memory {

// The growing segment is sealed when it has this many slots.
inline constexpr uint64_t kSealSlots = 65536;
// What remains at the end of an ingest is sealed when it has this many: the exact scan of more
// would take longer than that of all codes of a large memory.
inline constexpr uint64_t kSealTailSlots = 4096;
// As many segments of a tier (or smaller) make one of the next tier.
inline constexpr int kMergeFactor = 4;
// Segments are not planned larger than this: the keys of one layer of it must fit main memory.
inline constexpr uint64_t kMaxSegmentSlots = 4194304;

// floor(log4(4/3 · n_slots / kSealSlots)), at least that of kSealTailSlots.
int SegmentTier(uint64_t n_slots);

// How many of the last segments become one, the newest (last of `n_slots`) included; 1: none but
// itself. The trailing segments that are of the newest one's tier or a smaller one are merged when
// they are kMergeFactor or more, and again with the result, so that the number of segments stays
// logarithmic; past kMaxSegmentSlots (and a half, for what windows add) nothing more is merged.
size_t MergeCount(std::span<const uint64_t> n_slots);

struct SealPlan {
  uint64_t generation = 0;
  storage::Slot slot_begin = 0;
  storage::Slot slot_end = 0;
  std::vector<storage::SegmentRecord> merged = {};  // segments that the new one replaces
};

// What to seal now: nothing while the growing segment has less than `min_slots`. Merges that the
// new segment causes are part of the plan, so that nothing is built to be merged at once.
absl::StatusOr<std::optional<SealPlan>> PlanSealing(const storage::DocumentStore& store,
                                                    uint64_t min_slots = kSealSlots);

// Seals until there is nothing to plan. `index_spec` of the store's settings.
absl::Status SealAll(compute::Device& device, storage::DocumentStore* store,
                     const std::filesystem::path& index_folder, const Progress& progress,
                     uint64_t min_slots = kSealSlots);

struct SealerOptions {
  // For the sealer's thread alone; null: a CPU with one thread, as the foreground encodes with all
  // the others.
  std::unique_ptr<compute::Device> device = nullptr;
  uint64_t min_slots = kSealSlots;  // of the growing segment, before the end of an ingest
};

// A thread with a Device of its own that seals what a writer commits. A crash at any moment
// leaves the old or the new segments. Nothing else may rebuild segments of this store meanwhile
// (Rebuild, Verify with repair). Thread-safe.
class BackgroundSealer {
 public:
  // `store` is open for writing and outlives the sealer. Segments named in `damaged_segments`
  // (Segment::damage not empty) are built again first.
  static absl::StatusOr<std::unique_ptr<BackgroundSealer>> Start(
      storage::DocumentStore* store, std::filesystem::path index_folder,
      std::vector<uint64_t> damaged_segments, SealerOptions options = {});
  // Stops a build that is under way; it is begun again another time.
  ~BackgroundSealer();
  BackgroundSealer(const BackgroundSealer&) = delete;
  BackgroundSealer& operator=(const BackgroundSealer&) = delete;

  // Something was committed. Returns at once.
  void Notify();

  // Waits until everything that is committed now is sealed as far as it should be, the end of an
  // ingest (kSealTailSlots) included. Returns what
  // kept it from that, or Cancelled when `progress` is. After an error the thread rests, whatever
  // is committed, until the next call tries again. The segments are visible to queries after
  // Memory::Publish.
  absl::Status WaitUntilIdle(const Progress& progress);

 private:
  BackgroundSealer(storage::DocumentStore* store, std::filesystem::path index_folder,
                   std::vector<uint64_t> damaged_segments, std::unique_ptr<compute::Device> device,
                   uint64_t min_slots);
  void Run();
  absl::Status Work(uint64_t min_slots);

  storage::DocumentStore* store_;
  const std::filesystem::path index_folder_;
  const uint64_t min_slots_;
  std::unique_ptr<compute::Device> device_;
  std::atomic<bool> stop_{false};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> damaged_segments_;  // used by the thread only
  bool pending_ = false;
  bool working_ = false;
  bool is_waited_for_ = false;  // the end of an ingest: its tail is sealed too
  absl::Status status_;
  std::optional<ProgressUpdate> last_update_;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fovea::memory
