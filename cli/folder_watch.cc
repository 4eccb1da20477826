#include "cli/folder_watch.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "documents/names.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// A file that is being written changes often: only its closing counts.
constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                             IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
constexpr std::chrono::milliseconds kPollStep(100);

}  // namespace

absl::StatusOr<std::unique_ptr<FolderWatch>> FolderWatch::Create(std::vector<fs::path> roots,
                                                                 LeavesOut leaves_out) {
  const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "watch", roots.empty() ? fs::path() : roots.front());
  return std::unique_ptr<FolderWatch>(new FolderWatch(fd, std::move(roots), std::move(leaves_out)));
}

FolderWatch::~FolderWatch() { close(fd_); }

absl::Status FolderWatch::Add(const fs::path& folder) {
  if (inotify_add_watch(fd_, folder.c_str(), kEvents | IN_ONLYDIR) >= 0) return absl::OkStatus();
  // A folder that has gone again, or is not ours to read: the reading of the files tells.
  if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return absl::OkStatus();
  if (errno == ENOSPC) {
    return absl::ResourceExhaustedError(
        StrCat(documents::PrintableName(folder.native()),
               ": no more folders can be watched: raise fs.inotify.max_user_watches (sysctl)"));
  }
  return ErrnoToStatus(errno, "watch", folder);
}

std::vector<FolderWatch::RootId> FolderWatch::LookAtRoots() const {
  std::vector<RootId> ids;
  for (const fs::path& root : roots_) {
    struct stat status {};
    ids.push_back(stat(root.c_str(), &status) == 0 ? RootId{status.st_dev, status.st_ino}
                                                   : RootId{});
  }
  return ids;
}

absl::Status FolderWatch::Update() {
  root_ids_ = LookAtRoots();
  for (const fs::path& root : roots_) {
    RETURN_IF_ERROR(Add(root));
    std::error_code error;
    fs::recursive_directory_iterator entry(root, fs::directory_options::skip_permission_denied,
                                           error);
    for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_symlink(ignored) || !entry->is_directory(ignored)) continue;
      if (entry->path().filename().native().starts_with('.') || leaves_out_(entry->path())) {
        entry.disable_recursion_pending();
      } else {
        RETURN_IF_ERROR(Add(entry->path()));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> FolderWatch::Drain() {
  bool any = false;
  alignas(inotify_event) char events[4096];
  for (;;) {
    const ssize_t n_bytes = read(fd_, events, sizeof(events));
    if (n_bytes > 0) {
      any = true;
    } else if (n_bytes < 0 && errno == EINTR) {
      continue;
    } else if (n_bytes < 0 && errno != EAGAIN) {
      return ErrnoToStatus(errno, "watch", roots_.front());
    } else {
      return any;
    }
  }
}

absl::StatusOr<bool> FolderWatch::Wait(std::chrono::milliseconds quiet,
                                       std::chrono::milliseconds at_most,
                                       const std::atomic<bool>* stop) {
  bool changed = false;
  Clock::time_point first;
  Clock::time_point last;
  while (!stop->load()) {
    pollfd ready = {.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, static_cast<int>(kPollStep.count())) < 0 && errno != EINTR) {
      return ErrnoToStatus(errno, "watch", roots_.front());
    }
    ASSIGN_OR_RETURN(const bool has_events, Drain());
    // One that was gone and is there again has no watch that could tell.
    std::vector<RootId> ids = LookAtRoots();
    const bool more = has_events || ids != root_ids_;
    root_ids_ = std::move(ids);
    const Clock::time_point now = Clock::now();
    if (more) {
      if (!changed) first = now;
      last = now;
      changed = true;
    }
    if (changed && (now - last >= quiet || now - first >= at_most)) return true;
  }
  return false;
}

}  // namespace fovea::cli
