// The files of a folder that may be ingested.
#include <algorithm>
#include <system_error>

#include "documents/names.h"
#include "documents/text_document.h"

namespace fovea::documents {
namespace fs = std::filesystem;
namespace {

bool IsHidden(const fs::path& path) { return path.filename().native().starts_with('.'); }

// Puts an entry of a folder where it belongs.
void Sort(const fs::directory_entry& entry, absl::FunctionRef<bool(const fs::path&)> leaves_out,
          FileList* list, std::vector<fs::path>* folders) {
  std::error_code ignored;
  switch (entry.status(ignored).type()) {  // of what a link points to
    case fs::file_type::directory:
      // A link may lead back up.
      if (entry.is_symlink(ignored)) {
        list->left_out.push_back({entry.path(), "link to a folder"});
      } else if (leaves_out(entry.path())) {
        list->left_out.push_back({entry.path(), "memory of fovea"});
      } else {
        folders->push_back(entry.path());
      }
      break;
    case fs::file_type::block:
    case fs::file_type::character:
    case fs::file_type::fifo:
    case fs::file_type::socket:
      list->left_out.push_back({entry.path(), "FIFO, socket or device"});
      break;
    case fs::file_type::not_found:
      list->left_out.push_back({entry.path(), "link to nothing"});
      break;
    default:  // of what cannot be looked at, its reader says why
      list->files.push_back(entry.path());
      break;
  }
}

}  // namespace

absl::StatusOr<FileList> ListDocuments(const fs::path& path, bool recursive,
                                       absl::FunctionRef<bool(const fs::path&)> leaves_out) {
  std::error_code error;
  FileList list;
  if (!fs::is_directory(path, error)) {
    list.files = {path};
    return list;
  }
  const std::string name = PrintableName(path.native());
  if (!recursive) {
    return absl::InvalidArgumentError(
        StrCat(name, ": a folder, want a file: pass --recursive to take its files"));
  }
  if (leaves_out(path)) {
    return absl::InvalidArgumentError(
        StrCat(name, ": a memory of fovea, want a folder with documents"));
  }
  std::vector<fs::path> folders = {path};
  while (!folders.empty()) {
    const fs::path folder = std::move(folders.back());
    folders.pop_back();
    fs::directory_iterator entries(folder, error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      if (!IsHidden(entries->path())) Sort(*entries, leaves_out, &list, &folders);
    }
    if (!error) continue;
    if (folder == path) {
      return absl::PermissionDeniedError(
          StrCat(name, ": cannot list this folder: ", error.message()));
    }
    list.files.push_back(folder);  // an error of one folder is one failed document
    error.clear();
  }
  if (list.files.empty() && list.left_out.empty()) {
    return absl::NotFoundError(
        StrCat(name, ": no files in this folder: hidden ones are passed over"));
  }
  std::sort(list.files.begin(), list.files.end());
  return list;
}

}  // namespace fovea::documents
