#include "memory/segment_files.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/hash.h"

namespace fovea::memory {
namespace {

// Everything that a build writes begins like this, temporary names included; other files in the
// folder are not ours to remove.
constexpr std::string_view kPrefix = "segment-";

}  // namespace

std::string SegmentFileName(uint64_t segment_id, int memory_layer) {
  return StrCat(kPrefix, segment_id, "-layer-", memory_layer, ".index");
}

absl::StatusOr<storage::SegmentFile> DescribeSegmentFile(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  return storage::SegmentFile{.name = path.filename().string(),
                              .size_bytes = file->bytes().size(),
                              .checksum = Checksum64(file->bytes())};
}

absl::Status CheckSegmentFile(const storage::SegmentFile& file,
                              const std::filesystem::path& index_folder) {
  const std::filesystem::path path = index_folder / file.name;
  ASSIGN_OR_RETURN(const storage::SegmentFile actual, DescribeSegmentFile(path));
  if (actual.size_bytes != file.size_bytes) {
    return absl::DataLossError(
        StrCat(path, ": ", actual.size_bytes, " bytes, want ", file.size_bytes));
  }
  if (actual.checksum != file.checksum) {
    return absl::DataLossError(absl::StrFormat("%s: checksum %016x, want %016x", path.string(),
                                               actual.checksum, file.checksum));
  }
  return absl::OkStatus();
}

Segment OpenSegment(const storage::SegmentRecord& record,
                    const std::filesystem::path& index_folder) {
  Segment segment;
  segment.record = record;
  for (const storage::SegmentFile& file : record.files) {
    absl::Status status = CheckSegmentFile(file, index_folder);
    if (status.ok()) {
      absl::StatusOr<std::unique_ptr<index::LayerIndex>> layer =
          index::LayerIndex::Load(index_folder / file.name);
      status = layer.status();
      if (status.ok()) segment.layers.push_back(*std::move(layer));
    }
    if (!status.ok()) {
      segment.layers.clear();
      segment.damage = std::string(status.message());
      break;
    }
  }
  return segment;
}

void RemoveSegmentFiles(std::span<const storage::SegmentRecord> segments,
                        const std::filesystem::path& index_folder) {
  for (const storage::SegmentRecord& segment : segments) {
    for (const storage::SegmentFile& file : segment.files) {
      std::error_code ignored;
      std::filesystem::remove(index_folder / file.name, ignored);
    }
  }
}

absl::StatusOr<std::vector<std::string>> RemoveOrphanFiles(
    const storage::DocumentStore& store, const std::filesystem::path& index_folder) {
  ASSIGN_OR_RETURN(const std::vector<storage::SegmentRecord> segments, store.Segments());
  absl::flat_hash_set<std::string> named;
  for (const storage::SegmentRecord& segment : segments) {
    for (const storage::SegmentFile& file : segment.files) named.insert(file.name);
  }
  std::vector<std::string> orphans;
  std::error_code error;
  std::filesystem::directory_iterator entries(index_folder, error);
  if (error == std::errc::no_such_file_or_directory) return orphans;
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (name.starts_with(kPrefix) && !named.contains(name)) orphans.push_back(name);
  }
  if (error) return ErrnoToStatus(error.value(), "list", index_folder);
  std::sort(orphans.begin(), orphans.end());
  for (const std::string& name : orphans) {
    std::filesystem::remove(index_folder / name, error);
    if (error) return ErrnoToStatus(error.value(), "remove", index_folder / name);
  }
  return orphans;
}

}  // namespace fovea::memory
