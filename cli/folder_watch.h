// Tells when something in folders changes (inotify).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "base/status.h"

namespace fovea::cli {

// Not thread-safe.
class FolderWatch {
 public:
  // Of folders whose changes do not count: those of a memory that is being written to, say.
  using LeavesOut = std::function<bool(const std::filesystem::path& folder)>;

  static absl::StatusOr<std::unique_ptr<FolderWatch>> Create(
      std::vector<std::filesystem::path> roots, LeavesOut leaves_out);
  ~FolderWatch();
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;

  // Watches the folders that are there now, with those below them (not hidden ones, not links,
  // not what is left out). To be called before their files are read: what changes after it ends the
  // next Wait, a root that comes back included.
  // ResourceExhausted where the system has no more watches to give.
  absl::Status Update();

  // Returns true once something has changed and nothing more did for `quiet`, or `at_most` after
  // the first change; false once *stop is set.
  absl::StatusOr<bool> Wait(std::chrono::milliseconds quiet, std::chrono::milliseconds at_most,
                            const std::atomic<bool>* stop);

 private:
  FolderWatch(int fd, std::vector<std::filesystem::path> roots, LeavesOut leaves_out)
      : fd_(fd), roots_(std::move(roots)), leaves_out_(std::move(leaves_out)) {}
  // Device and inode; zeros: not there.
  struct RootId {
    uint64_t device = 0;
    uint64_t inode = 0;
    bool operator==(const RootId&) const = default;
  };
  std::vector<RootId> LookAtRoots() const;
  absl::Status Add(const std::filesystem::path& folder);
  // Whether events were waiting; they are dropped.
  absl::StatusOr<bool> Drain();

  const int fd_;
  const std::vector<std::filesystem::path> roots_;
  const LeavesOut leaves_out_;
  std::vector<RootId> root_ids_;  // as they were looked at last
};

}  // namespace fovea::cli
