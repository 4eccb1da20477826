#include "documents/confined_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <new>

#include "base/file.h"

namespace fovea::documents {
namespace {

// Ends of the child that its exit status tells.
constexpr int kOutOfMemory = 120;
constexpr int kThrew = 121;
constexpr int kParentLeft = 122;

constexpr size_t kMaxMessageBytes = size_t{1} << 31;
constexpr size_t kHeaderBytes = 1 + sizeof(uint64_t);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitMemory = false;  // sanitizers reserve more than any limit would leave them
#else
constexpr bool kLimitMemory = true;
#endif

// What this process may write to, in bytes: what RLIMIT_DATA counts. 0 where Linux does not tell.
uint64_t DataBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long size = 0, resident = 0, shared = 0, text = 0, library = 0, data = 0;
  const int n = std::fscanf(file, "%lu %lu %lu %lu %lu %lu", &size, &resident, &shared, &text,
                            &library, &data);
  std::fclose(file);
  return n == 6 ? data * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

void Limit(decltype(RLIMIT_DATA) resource, uint64_t most) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(most, limit.rlim_max);
  setrlimit(resource, &limit);
}

double SecondsUsed() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Of the child, for AllowSeconds.
double seconds_in_all = 0;

// _exit: nothing that the parent has is to be flushed or destroyed a second time.
[[noreturn]] void RunChild(pid_t parent, int descriptor, const ProcessLimits& limits,
                           const std::function<void(const MessageWriter&)>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kParentLeft);
  for (const int number : {SIGINT, SIGTERM, SIGXCPU}) std::signal(number, SIG_DFL);
  Limit(RLIMIT_CORE, 0);
  if (kLimitMemory) {  // libraries print when they find none
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) dup2(null, STDERR_FILENO);
  }
  const uint64_t data_bytes = DataBytes();
  if (kLimitMemory && data_bytes > 0) Limit(RLIMIT_DATA, data_bytes + limits.memory_bytes);
  seconds_in_all = limits.seconds;
  ConfinedProcess::AllowSeconds(limits.seconds);
  try {
    work(MessageWriter(descriptor));
  } catch (const std::bad_alloc&) {
    _exit(kOutOfMemory);
  } catch (const std::exception&) {
    _exit(kThrew);
  }
  _exit(0);
}

}  // namespace

void MessageWriter::Send(char kind, std::string_view payload) const {
  char header[kHeaderBytes];
  header[0] = kind;
  const uint64_t size_bytes = payload.size();
  std::memcpy(header + 1, &size_bytes, sizeof size_bytes);
  for (std::string_view bytes : {std::string_view(header, kHeaderBytes), payload}) {
    while (!bytes.empty()) {
      const ssize_t n = write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) _exit(kParentLeft);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
}

absl::StatusOr<std::unique_ptr<ConfinedProcess>> ConfinedProcess::Start(
    const ProcessLimits& limits, const std::function<void(const MessageWriter&)>& work) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoToStatus(errno, "make", "a pipe");
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    return ErrnoToStatus(error, "start", "a process of its own for a file");
  }
  if (pid == 0) {
    close(ends[0]);
    RunChild(parent, ends[1], limits, work);
  }
  close(ends[1]);
  return std::unique_ptr<ConfinedProcess>(new ConfinedProcess(pid, ends[0], limits));
}

ConfinedProcess::~ConfinedProcess() {
  close(descriptor_);
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ConfinedProcess::AllowSeconds(double seconds) {
  const double until = std::min(SecondsUsed() + seconds, seconds_in_all);
  Limit(RLIMIT_CPU, static_cast<uint64_t>(std::ceil(std::max(until, 1.0))));
}

absl::StatusOr<bool> ConfinedProcess::ReadExactly(char* to, size_t size_bytes) {
  for (size_t got = 0; got < size_bytes;) {
    const ssize_t n = read(descriptor_, to + got, size_bytes - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoToStatus(errno, "read from", "a process of its own for a file");
    if (n == 0) return false;
    got += static_cast<size_t>(n);
  }
  return true;
}

absl::StatusOr<Message> ConfinedProcess::Next() {
  char header[kHeaderBytes];
  ASSIGN_OR_RETURN(bool whole, ReadExactly(header, kHeaderBytes));
  if (!whole) {
    RETURN_IF_ERROR(Reap());
    return Message{};
  }
  Message message;
  message.kind = header[0];
  uint64_t size_bytes = 0;
  std::memcpy(&size_bytes, header + 1, sizeof size_bytes);
  if (size_bytes > kMaxMessageBytes) return absl::DataLossError("its reader went out of its mind");
  message.payload.resize(size_bytes);
  ASSIGN_OR_RETURN(whole, ReadExactly(message.payload.data(), size_bytes));
  if (whole) return message;
  RETURN_IF_ERROR(Reap());
  return absl::DataLossError("its reader ended in the middle of a message");
}

absl::Status ConfinedProcess::Reap() {
  if (pid_ <= 0) return absl::OkStatus();
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  if (WIFEXITED(status) && WEXITSTATUS(status) == kOutOfMemory) {
    return absl::ResourceExhaustedError(
        StrCat("it needs more than ", limits_.memory_bytes, " bytes of memory to be read"));
  }
  if (WIFSIGNALED(status)) {
    switch (WTERMSIG(status)) {
      case SIGXCPU:
        return absl::ResourceExhaustedError("it takes too long to be read");
      case SIGINT:
      case SIGTERM:
        return absl::CancelledError("interrupted");
      default:
        break;
    }
  }
  // Libraries that find no memory end their process in ways of their own.
  return absl::DataLossError(StrCat(
      "its reader crashed (", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it gave up",
      "), or needed more than ", limits_.memory_bytes, " bytes of memory"));
}

}  // namespace fovea::documents
