// The files of a folder that can be ingested.
#include <algorithm>
#include <system_error>

#include "documents/names.h"
#include "documents/text_document.h"

namespace fovea::documents {
namespace fs = std::filesystem;

absl::StatusOr<std::vector<fs::path>> ListDocuments(const fs::path& path, bool recursive) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return std::vector<fs::path>{path};
  const std::string name = PrintableName(path.native());
  if (!recursive) {
    return absl::InvalidArgumentError(
        StrCat(name, ": a folder, want a file: pass --recursive to take its files"));
  }
  std::vector<fs::path> files;
  std::vector<fs::path> folders = {path};
  while (!folders.empty()) {
    const fs::path folder = std::move(folders.back());
    folders.pop_back();
    fs::directory_iterator entries(folder, error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      const fs::directory_entry& entry = *entries;
      if (entry.path().filename().native().starts_with('.')) continue;
      // Links to folders are not followed: they may lead back up. What cannot be looked at is
      // listed when its name says that it is wanted, and its reader reports why it cannot be read.
      std::error_code ignored;
      if (entry.is_directory(ignored)) {
        if (!entry.is_symlink(ignored)) folders.push_back(entry.path());
      } else if (HasReader(entry.path())) {
        files.push_back(entry.path());
      }
    }
    if (!error) continue;
    if (folder == path) {
      return absl::PermissionDeniedError(
          StrCat(name, ": cannot list this folder: ", error.message()));
    }
    files.push_back(folder);  // an error of one folder is one failed document
    error.clear();
  }
  if (files.empty()) {
    return absl::NotFoundError(StrCat(name,
                                      ": no documents in this folder: none of its files ends in "
                                      ".txt, .md, .markdown, .html, .htm, .jsonl or .pdf"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace fovea::documents
