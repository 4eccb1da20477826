// A child process that does what hostile input may make slow, large or crash, and sends what it
// finds through a pipe. Linux bounds its time and memory; its end, however it comes, is a Status.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::documents {

struct ProcessLimits {
  size_t memory_bytes = 0;  // over and above what the parent has (not under a sanitizer)
  double seconds = 0;       // of processor time
};

// The child's end of the pipe.
class MessageWriter {
 public:
  explicit MessageWriter(int descriptor) : descriptor_(descriptor) {}
  // Waits while the parent does not read; ends the process when it reads no more.
  void Send(char kind, std::string_view payload) const;

 private:
  int descriptor_;
};

struct Message {
  char kind = 0;  // 0: the child has ended well
  std::string payload;
};

// Not thread-safe. Destroying it ends the child.
class ConfinedProcess {
 public:
  // Runs `work` in a child, which is a copy of this process with the calling thread alone: `work`
  // must not wait for others, nor start any.
  static absl::StatusOr<std::unique_ptr<ConfinedProcess>> Start(
      const ProcessLimits& limits, const std::function<void(const MessageWriter&)>& work);
  ~ConfinedProcess();
  ConfinedProcess(const ConfinedProcess&) = delete;
  ConfinedProcess& operator=(const ConfinedProcess&) = delete;

  // The next message. ResourceExhausted when the child went over a limit, DataLoss when it crashed,
  // Cancelled when a signal ended it.
  absl::StatusOr<Message> Next();

  // In the child: what comes next may take `seconds` of processor time, but no more than is left of
  // all of it.
  static void AllowSeconds(double seconds);

 private:
  ConfinedProcess(pid_t pid, int descriptor, const ProcessLimits& limits)
      : pid_(pid), descriptor_(descriptor), limits_(limits) {}
  absl::StatusOr<bool> ReadExactly(char* to, size_t size_bytes);  // false at the pipe's end
  absl::Status Reap();

  pid_t pid_;
  int descriptor_;
  ProcessLimits limits_;
};

}  // namespace fovea::documents
