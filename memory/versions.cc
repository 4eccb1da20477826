#include "memory/versions.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/file.h"

namespace fovea::memory {

namespace fs = std::filesystem;

absl::StatusOr<std::string> NextVersion(const fs::path& folder, const std::string& version) {
  int number = 0;
  std::from_chars(version.data(), version.data() + version.size(), number);
  if (number >= 9999) {
    return absl::FailedPreconditionError(StrCat(
        folder, ": version ", version, " is the last; ingest the documents into a new memory"));
  }
  return absl::StrFormat("%04d", number + 1);
}

absl::Status MakeCurrent(const fs::path& folder, const std::string& version) {
  return WriteFileAtomic(folder / "CURRENT", StrCat(version, "\n"));
}

void RemoveOtherVersions(const fs::path& folder, const std::string& current,
                         const std::string& next) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const bool is_version = name.size() == 4 && std::all_of(name.begin(), name.end(), [](char c) {
                              return c >= '0' && c <= '9';
                            });
    if (is_version && name != current && name != next) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

}  // namespace fovea::memory
