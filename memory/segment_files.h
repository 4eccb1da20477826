// The files of sealed segments: their names, opening them, checking them, and removing those that
// no record names. Files are derived: whatever is missing or damaged is searched exactly until it
// is built again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/generation.h"
#include "storage/document_store.h"

namespace fovea::memory {

// "segment-12-layer-0.index"
std::string SegmentFileName(uint64_t segment_id, int memory_layer);

// OK when `file` is there with its recorded size and checksum; NotFound or DataLoss says what is
// wrong with it.
absl::Status CheckSegmentFile(const storage::SegmentFile& file,
                              const std::filesystem::path& index_folder);

// `path` as a record names it: size and checksum of what lies there.
absl::StatusOr<storage::SegmentFile> DescribeSegmentFile(const std::filesystem::path& path);

// Checks and loads the indexes of a segment. Never fails: with a file that is missing or damaged
// `layers` is empty and `damage` says which and why; exact search then serves the segment.
Segment OpenSegment(const storage::SegmentRecord& record,
                    const std::filesystem::path& index_folder);

// Removes the files of segments whose records are gone. Best effort: what remains is an orphan.
void RemoveSegmentFiles(std::span<const storage::SegmentRecord> segments,
                        const std::filesystem::path& index_folder);

// Removes the segment files that no record of any generation names (an interrupted build leaves
// them), temporary ones too; returns their names, sorted. For writers when they open, before
// anything builds segments.
absl::StatusOr<std::vector<std::string>> RemoveOrphanFiles(
    const storage::DocumentStore& store, const std::filesystem::path& index_folder);

}  // namespace fovea::memory
