// Builds the index of a run of slots from stored keys: one memory layer at a time, calibrated with
// stored queries. Which runs to build is decided elsewhere (sealer.h, rebuild.h, verify.h).
//
//   ASSIGN_OR_RETURN(auto record, BuildSegment(device, store, folder, settings, request,
//   progress)); RETURN_IF_ERROR(CommitSegment(store, folder, record, /*replaced=*/{}));  // the
//   commit point
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "storage/document_store.h"

namespace fovea::memory {

// Share of confident queries whose best key an index must find (index/calibration.h).
inline constexpr double kTargetNeedleRecall = 0.99;

// Queries that an index is calibrated with, per memory layer: enough for some dozens of confident
// (query, head) pairs of book text, and cheap beside building an index.
inline constexpr int64_t kCalibrationQueries = 512;

struct SegmentRequest {
  uint64_t generation = 0;
  storage::Slot slot_begin = 0;
  storage::Slot slot_end = 0;  // both between windows
  std::string spec;            // "auto", "exact", "IVF1024,Flat", …
};

// Takes a new segment id, builds the files of the segment in `index_folder` (made where it is
// missing) and returns its record, which is not committed yet: until it is, the files are orphans.
// The index covers every stored window of the range, also of documents that are not complete.
// Needs main memory for the keys of one memory layer of the range.
//
// "auto" chooses a specification for each layer (the record names them all, "Scan2 + Scan4"); a
// layer with too few confident queries to judge by takes that of another. A layer that needs the
// exact scan, or a specification that cannot hold so few keys, makes the segment "exact", which has
// no files and costs nothing. Search effort is the largest that any layer needs.
//
// DataLoss when a block in the range is damaged or missing. After an error no files remain.
absl::StatusOr<storage::SegmentRecord> BuildSegment(compute::Device& device,
                                                    storage::DocumentStore* store,
                                                    const std::filesystem::path& index_folder,
                                                    const storage::StoreSettings& settings,
                                                    const SegmentRequest& request,
                                                    const Progress& progress);

// Puts `record` in place of `replaced` in one commit, then removes the files of `replaced`. After
// an error the old records are in place.
absl::Status CommitSegment(storage::DocumentStore* store, const std::filesystem::path& index_folder,
                           const storage::SegmentRecord& record,
                           std::span<const storage::SegmentRecord> replaced);

// Builds `record`'s segment again from the store, with the same range and requested specification,
// under a new id, and commits it in place of the old one. Returns the new record.
absl::StatusOr<storage::SegmentRecord> RebuildSegment(compute::Device& device,
                                                      storage::DocumentStore* store,
                                                      const std::filesystem::path& index_folder,
                                                      const storage::SegmentRecord& record,
                                                      const Progress& progress);

}  // namespace fovea::memory
