#include "cli/eval_workplace.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

#include "base/file.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "fovea-eval-";
// In each temporary folder: the kernel gives the lock on it up when its process ends, however.
constexpr char kLockName[] = "lock";

enum class Lock {
  kTaken,
  kLost,  // another process has it, or had it and has removed the file since it was opened
  kNone,  // a file system without locks
};

Lock TakeLock(int file) {
  if (flock(file, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK ? Lock::kLost : Lock::kNone;
  struct stat status {};
  return fstat(file, &status) == 0 && status.st_nlink > 0 ? Lock::kTaken : Lock::kLost;
}

// The lock last: what is left when this is killed can be removed by the next one.
void RemoveFolder(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().filename() != kLockName) fs::remove_all(entry->path(), ignored);
  }
  fs::remove_all(folder, error);
}

// In a folder that all users share others may have put anything: only this user's own folders, and
// no links.
bool IsOwnFolder(const fs::path& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

// What evaluations that were killed have left.
void RemoveLeftovers(const fs::path& parent) {
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end;
       entry.increment(error)) {
    const fs::path& folder = entry->path();
    if (!folder.filename().native().starts_with(kPrefix) || !IsOwnFolder(folder)) continue;
    const int lock = open((folder / kLockName).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (lock < 0) continue;
    if (TakeLock(lock) == Lock::kTaken) RemoveFolder(folder);
    close(lock);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EvalWorkplace>> EvalWorkplace::Create(const std::string& named) {
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error);
  if (!error) RemoveLeftovers(parent);
  if (!named.empty()) {
    RETURN_IF_ERROR(CreateDirectories(named));
    return std::unique_ptr<EvalWorkplace>(new EvalWorkplace(named, -1));
  }
  const auto failed = [](int number, const fs::path& path) {
    return Annotate(ErrnoToStatus(number, "create a folder", path),
                    "--folder DIR names another place for the memories");
  };
  if (error) return failed(error.value(), parent);
  for (;;) {
    std::string name = (parent / StrCat(kPrefix, "XXXXXX")).native();
    if (mkdtemp(name.data()) == nullptr) return failed(errno, name);
    const fs::path lock_path = fs::path(name) / kLockName;
    const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (lock < 0) {
      const int number = errno;
      RemoveFolder(name);
      return failed(number, lock_path);
    }
    // Where there are no locks nobody takes the folder for a leftover either.
    if (TakeLock(lock) != Lock::kLost) {
      return std::unique_ptr<EvalWorkplace>(new EvalWorkplace(name, lock));
    }
    // Another process saw the file before it was locked, and removes the folder.
    close(lock);
    RemoveFolder(name);
  }
}

EvalWorkplace::~EvalWorkplace() {
  if (lock_ < 0) return;
  RemoveFolder(path_);
  close(lock_);
}

}  // namespace fovea::cli
