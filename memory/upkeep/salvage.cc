#include "memory/upkeep/salvage.h"

#include <memory>
#include <string>
#include <system_error>

#include "base/file.h"
#include "memory/versions.h"
#include "storage/document_store.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using storage::DocumentStore;
using storage::OpenMode;

absl::Status CopyVersion(DocumentStore* store, const fs::path& from, const fs::path& to,
                         const Progress& progress) {
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<DocumentStore> copy,
                     OpenStore(to, {.mode = OpenMode::kCreate}));
    RETURN_IF_ERROR(store->CopyReadable(copy.get(), [&](uint64_t n_bytes) {
      return progress.Report(
          {.stage = "copy store", .done = static_cast<int64_t>(n_bytes), .unit = "bytes"});
    }));
  }
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(from, error)) {
    const fs::path name = entry.path().filename();
    if (name == kStoreFolder || IsStateFile(name)) continue;
    auto options = fs::copy_options::recursive;
    // Index files are never changed, so that a second name does; the text index is.
    if (entry.is_directory(error)) options |= fs::copy_options::create_hard_links;
    fs::copy(entry.path(), to / name, options, error);
    if (error) return ErrnoToStatus(error.value(), "copy", entry.path());
  }
  if (error) return ErrnoToStatus(error.value(), "list", from);
  return absl::OkStatus();
}

}  // namespace

absl::Status MoveToNewStore(const fs::path& folder, const Progress& progress) {
  ASSIGN_OR_RETURN(const std::string version, CurrentVersion(folder));
  ASSIGN_OR_RETURN(const std::string next_version, NextVersion(folder, version));
  {
    // For writing, so that nobody changes it meanwhile.
    ASSIGN_OR_RETURN(const std::unique_ptr<DocumentStore> store,
                     OpenStore(folder / version, {.mode = OpenMode::kWrite, .salvage = true}));
    RETURN_IF_ERROR(FinishMakeCurrent(folder, version));
    RemoveOtherVersions(folder, version);
    RETURN_IF_ERROR(MarkFilling(folder, next_version));
    const absl::Status copied =
        CopyVersion(store.get(), folder / version, folder / next_version, progress);
    if (!copied.ok()) {
      RemoveOtherVersions(folder, version);
      return copied;
    }
    RETURN_IF_ERROR(MakeCurrent(folder, next_version));
  }
  RemoveOtherVersions(folder, next_version);
  return absl::OkStatus();
}

}  // namespace fovea::memory
