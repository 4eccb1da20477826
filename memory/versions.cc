#include "memory/versions.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/file.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;

constexpr char kStateFile[] = "STATE";
constexpr std::string_view kFilling = "filling";
constexpr std::string_view kWhole = "whole";
constexpr std::string_view kActive = "active";

fs::path CurrentPath(const fs::path& folder) { return folder / "CURRENT"; }

bool IsVersionName(std::string_view name) {
  return name.size() == 4 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool HasStore(const fs::path& version_folder) {
  std::error_code error;
  return fs::is_directory(version_folder / kStoreFolder, error);
}

// The names of version folders, with a store or without, ascending.
std::vector<std::string> ListVersions(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (IsVersionName(name)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> ListStores(const fs::path& folder) {
  std::vector<std::string> names = ListVersions(folder);
  std::erase_if(names, [&](const std::string& name) { return !HasStore(folder / name); });
  return names;
}

// One of the three words, empty where there is no such file; DataLoss for anything else in it.
absl::StatusOr<std::string> ReadState(const fs::path& folder, const std::string& version) {
  const fs::path path = folder / version / kStateFile;
  absl::StatusOr<std::string> state = ReadFile(path, 64);
  if (absl::IsNotFound(state.status())) return std::string();
  RETURN_IF_ERROR(state.status());
  for (const std::string_view word : {kFilling, kWhole, kActive}) {
    if (*state == StrCat(word, "\n")) return std::string(word);
  }
  return absl::DataLossError(
      StrCat(path, ": holds \"", *state, "\", want filling, whole or active"));
}

bool Says(const absl::StatusOr<std::string>& state, std::string_view word) {
  return state.ok() && *state == word;
}

absl::Status WriteState(const fs::path& folder, const std::string& version,
                        std::string_view state) {
  return WriteFileAtomic(folder / version / kStateFile, StrCat(state, "\n"));
}

// What CURRENT holds, if that is the name of a version.
absl::StatusOr<std::string> ReadCurrent(const fs::path& folder) {
  const fs::path path = CurrentPath(folder);
  absl::StatusOr<std::string> content = ReadFile(path, 64);
  if (absl::IsNotFound(content.status())) {
    const std::vector<std::string> stores = ListStores(folder);
    if (!stores.empty()) {
      return absl::DataLossError(StrCat(
          path,
          ": is missing, but there are versions of the memory: ", absl::StrJoin(stores, " ")));
    }
    return absl::NotFoundError(
        StrCat(folder, ": no memory here; `fovea ingest --memory DIR PATH…` makes one"));
  }
  if (absl::IsResourceExhausted(content.status())) {
    return absl::DataLossError(
        StrCat(content.status().message(), ", want the name of a version folder such as 0001"));
  }
  RETURN_IF_ERROR(content.status());
  while (!content->empty() && content->back() == '\n') content->pop_back();
  if (!IsVersionName(*content)) {
    return absl::DataLossError(
        StrCat(path, ": holds \"", *content, "\", want the name of a version folder such as 0001"));
  }
  return *std::move(content);
}

// Whether the version that CURRENT names is there and can be the active one.
absl::Status CheckCurrent(const fs::path& folder, const std::string& version) {
  const std::string names = StrCat(CurrentPath(folder), ": holds \"", version, "\", but ");
  if (!HasStore(folder / version)) {
    const std::vector<std::string> stores = ListStores(folder);
    return absl::DataLossError(StrCat(names, "there is no such version of the memory, only: ",
                                      stores.empty() ? "none" : absl::StrJoin(stores, " ")));
  }
  if (Says(ReadState(folder, version), kFilling)) {
    return absl::DataLossError(
        StrCat(names, "that version is not whole: an interrupted `fovea rebuild --reencode` left ",
               "it behind"));
  }
  for (const std::string& later : ListStores(folder)) {
    if (later > version && Says(ReadState(folder, later), kActive)) {
      return absl::DataLossError(StrCat(names, later, " has taken its place since (to go back to ",
                                        version, " on purpose, remove ", folder / later, ")"));
    }
  }
  return absl::OkStatus();
}

// What CurrentVersion returns, without what to do.
absl::StatusOr<std::string> CheckedCurrent(const fs::path& folder) {
  for (;;) {
    const absl::StatusOr<std::string> version = ReadCurrent(folder);
    const absl::Status status = version.ok() ? CheckCurrent(folder, *version) : version.status();
    if (!absl::IsDataLoss(status)) {
      RETURN_IF_ERROR(status);
      return version;
    }
    // What was read may have been right when it was read: another process may have put the next
    // version in the place of this one meanwhile.
    if (ReadCurrent(folder) == version) return status;
  }
}

// The version that CURRENT should name, by what the version folders say of themselves. DataLoss,
// naming them, where that cannot be told.
absl::StatusOr<std::string> FindActiveVersion(const fs::path& folder) {
  std::string active;
  std::vector<std::string> candidates;  // no state: a first version, or nobody knows
  std::vector<std::string> unknown;     // a state that cannot be read
  std::vector<std::string> found;       // for people
  for (const std::string& version : ListStores(folder)) {
    const absl::StatusOr<std::string> state = ReadState(folder, version);
    if (Says(state, kActive)) {
      // All before it have had their time.
      active = version;
      candidates.clear();
      unknown.clear();
    } else if (Says(state, "")) {
      candidates.push_back(version);
    } else if (!state.ok()) {
      unknown.push_back(version);
    }
    found.push_back(StrCat(version, " (",
                           !state.ok()      ? std::string(state.status().message())
                           : state->empty() ? "no STATE"
                                            : StrCat("STATE ", *state),
                           ")"));
  }
  if (!active.empty()) candidates.insert(candidates.begin(), active);
  if (candidates.size() == 1 && unknown.empty()) return candidates.front();
  return absl::DataLossError(StrCat(
      "which version it should name cannot be told from ",
      found.empty() ? "none" : absl::StrJoin(found, ", "),
      ". Nothing was changed: write the name of one into it, and look with `fovea docs list` ",
      "whether it holds your documents"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<storage::DocumentStore>> OpenStore(
    const fs::path& version_folder, const storage::StoreOptions& options) {
  return storage::DocumentStore::Open(version_folder / kStoreFolder, options);
}

bool HasVersions(const fs::path& folder) {
  std::error_code error;
  return fs::exists(CurrentPath(folder), error) || !ListStores(folder).empty();
}

bool IsNew(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(CurrentPath(folder), error)) return false;
  const std::vector<std::string> stores = ListStores(folder);
  if (stores.empty()) return true;
  return stores == std::vector<std::string>{kFirstVersion} &&
         Says(ReadState(folder, kFirstVersion), "");
}

absl::StatusOr<std::string> CurrentVersion(const fs::path& folder) {
  absl::StatusOr<std::string> version = CheckedCurrent(folder);
  if (!absl::IsDataLoss(version.status())) return version;
  return absl::DataLossError(StrCat(version.status().message(), "; run `fovea verify --repair`"));
}

absl::StatusOr<std::string> RestoreCurrent(const fs::path& folder) {
  const absl::Status damage = CheckedCurrent(folder).status();
  if (!absl::IsDataLoss(damage)) {
    RETURN_IF_ERROR(damage);
    return std::string();
  }
  const absl::StatusOr<std::string> version = FindActiveVersion(folder);
  if (!version.ok()) return Annotate(version.status(), std::string(damage.message()));
  // Open for writing, so that nobody fills the next version and makes that one current meanwhile.
  const auto store =
      OpenStore(folder / *version, {.mode = storage::OpenMode::kWrite, .salvage = true});
  if (!store.ok()) {
    return Annotate(store.status(), StrCat(damage.message(), "; it should name ", *version,
                                           ", which does not open"));
  }
  if (CheckedCurrent(folder).status() != damage) return RestoreCurrent(folder);
  RETURN_IF_ERROR(WriteFileAtomic(CurrentPath(folder), StrCat(*version, "\n")));
  return StrCat(damage.message(), "; now it names ", *version);
}

absl::StatusOr<std::string> NextVersion(const fs::path& folder, const std::string& version) {
  int number = 0;
  std::from_chars(version.data(), version.data() + version.size(), number);
  if (number >= 9999) {
    return absl::FailedPreconditionError(StrCat(
        folder, ": version ", version, " is the last; ingest the documents into a new memory"));
  }
  return absl::StrFormat("%04d", number + 1);
}

absl::Status MarkFilling(const fs::path& folder, const std::string& version) {
  RETURN_IF_ERROR(CreateDirectories(folder / version));
  return WriteState(folder, version, kFilling);
}

absl::Status MakeCurrent(const fs::path& folder, const std::string& version) {
  RETURN_IF_ERROR(WriteState(folder, version, kWhole));
  RETURN_IF_ERROR(WriteFileAtomic(CurrentPath(folder), StrCat(version, "\n")));
  return WriteState(folder, version, kActive);
}

absl::Status FinishMakeCurrent(const fs::path& folder, const std::string& version) {
  const absl::StatusOr<std::string> state = ReadState(folder, version);
  // CURRENT names it: what a damaged file said before is no question.
  const bool is_open = absl::IsDataLoss(state.status()) || Says(state, kWhole);
  if (!is_open) return state.status();
  return WriteState(folder, version, kActive);
}

bool IsStateFile(const fs::path& name) { return name == kStateFile; }

absl::Status RemoveVersion(const fs::path& folder, const std::string& version) {
  std::error_code error;
  // The store first: a version without one is none, whatever became of its STATE.
  for (const fs::path& path : {folder / version / kStoreFolder, folder / version}) {
    fs::remove_all(path, error);
    if (error) return ErrnoToStatus(error.value(), "remove", path);
  }
  return absl::OkStatus();
}

void RemoveOtherVersions(const fs::path& folder, const std::string& current,
                         const std::string& next) {
  for (const std::string& version : ListVersions(folder)) {
    if (version != current && version != next) RemoveVersion(folder, version).IgnoreError();
  }
}

}  // namespace fovea::memory
