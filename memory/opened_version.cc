#include "memory/opened_version.h"

#include <utility>

#include "base/file.h"
#include "memory/resident_entries.h"
#include "memory/segment_files.h"
#include "memory/versions.h"

namespace fovea::memory {

OpenedVersion::OpenedVersion() : resident_(std::make_unique<ResidentCache>()) {}
OpenedVersion::~OpenedVersion() = default;

absl::StatusOr<std::shared_ptr<OpenedVersion>> OpenedVersion::Open(
    const std::filesystem::path& memory_folder, const std::string& version,
    const MemoryOptions& options) {
  const std::shared_ptr<OpenedVersion> opened(new OpenedVersion);
  opened->memory_folder_ = memory_folder;
  opened->folder_ = memory_folder / version;
  opened->is_salvage_ = options.salvage;
  const bool writes = options.mode != storage::OpenMode::kRead;
  if (options.mode == storage::OpenMode::kCreate) {
    RETURN_IF_ERROR(CreateDirectories(opened->folder_));
  }
  ASSIGN_OR_RETURN(opened->store_,
                   OpenStore(opened->folder_, {.mode = options.mode,
                                               .salvage = options.salvage,
                                               .file_system = options.file_system}));
  if (writes) RETURN_IF_ERROR(CreateDirectories(opened->index_folder()));
  opened->cache_ = std::make_unique<BlockCache>(opened->store_.get(), options.cache_bytes);
  opened->resident_->set_pinned_limit_bytes(options.pinned_bytes);
  RETURN_IF_ERROR(opened->ReadSettings().status());
  if (writes && !options.salvage) {
    RETURN_IF_ERROR(RemoveOrphanFiles(*opened->store_, opened->index_folder()).status());
  }
  opened->text_index_ = std::make_unique<TextIndexFile>(
      opened->store_.get(), opened->folder_,
      TextIndexFile::Options{.writes = writes, .is_salvage = options.salvage});
  RETURN_IF_ERROR(opened->text_index_->Open());
  return opened;
}

absl::StatusOr<std::optional<storage::StoreSettings>> OpenedVersion::ReadSettings() const {
  absl::StatusOr<std::optional<storage::StoreSettings>> settings = store_->Settings();
  if (is_salvage_ && absl::IsDataLoss(settings.status())) settings.emplace();
  return settings;
}

}  // namespace fovea::memory
