// A memory as Python holds it: open until it is closed, whoever still works with it, and used by
// any number of threads.
#pragma once

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <vector>

#include "answer/fovea.h"
#include "base/status.h"
#include "compute/device.h"
#include "python/task.h"

namespace fovea::python {

// What is open. Questions use `fovea` as they come; one thread at a time changes the memory, with
// `changing` locked and on a device of its own, so that questions go on meanwhile.
struct Engine {
  std::unique_ptr<answer::Fovea> fovea;
  bool read_only = false;
  std::mutex changing;
  std::unique_ptr<compute::Device> device;  // of changes; made by the first one, under `changing`

  // The memory as it is now; of a reader what the writing process has committed.
  absl::StatusOr<std::shared_ptr<const memory::Generation>> View();
  // Requires `changing`. FailedPrecondition where the memory was opened read-only.
  absl::StatusOr<compute::Device*> DeviceForChanges();
};

// Thread-safe.
class OpenedMemory {
 public:
  static absl::StatusOr<std::unique_ptr<OpenedMemory>> Open(const answer::FoveaOptions& options);
  // As Close. In a child of fork() nothing is closed: the threads that it would wait for are the
  // parent's.
  ~OpenedMemory();

  // Closes all that this process has open: for its end.
  static void CloseAll();

  // FailedPrecondition once it is closed, and in a child of fork().
  absl::StatusOr<std::shared_ptr<Engine>> engine() const;
  // The task is cancelled and waited for by Close.
  void Track(std::shared_ptr<AnyTask> task);

  // Ends what runs, and lets other processes have the memory. Again: nothing.
  void Close();
  bool is_closed() const;
  const answer::FoveaOptions& options() const { return options_; }

 private:
  explicit OpenedMemory(answer::FoveaOptions options);

  const answer::FoveaOptions options_;
  const pid_t process_;
  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<Engine> engine_;
  std::vector<std::weak_ptr<AnyTask>> tasks_;
};

}  // namespace fovea::python
