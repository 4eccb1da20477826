#include "model_home/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "absl/cleanup/cleanup.h"

extern char** environ;

namespace fovea::model_home {
namespace {

constexpr size_t kMaxOutputBytes = size_t{16} << 10;
constexpr int kPollIntervalMs = 200;
constexpr int kTerminateTimeoutMs = 3000;

absl::Status SystemError(std::string_view action, const std::string& program, int error) {
  return absl::InternalError(StrCat("cannot ", action, " ", program, ": ", std::strerror(error)));
}

// This process's environment with `variables` in place of those of the same names.
std::vector<std::string> Environment(
    const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : variables) {
      replaced = replaced || (text.starts_with(name) && text.substr(name.size()).starts_with('='));
    }
    if (!replaced) entries.emplace_back(text);
  }
  for (const auto& [name, value] : variables) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// A process that has been started and not yet waited for.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (!waiting_) return;
    // It may clean up after itself; what ignores that is killed.
    ::kill(pid_, SIGTERM);
    for (int waited_ms = 0; waiting_ && waited_ms < kTerminateTimeoutMs; waited_ms += 50) {
      ::usleep(50 * 1000);
      TryWait(WNOHANG);
    }
    if (waiting_) {
      ::kill(pid_, SIGKILL);
      TryWait(0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int WaitForExitStatus() {
    TryWait(0);
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

 private:
  void TryWait(int options) {
    pid_t waited;
    do {
      waited = ::waitpid(pid_, &status_, options);
    } while (waited < 0 && errno == EINTR);
    if (waited != 0) waiting_ = false;
  }

  const pid_t pid_;
  bool waiting_ = true;
  int status_ = 0;
};

}  // namespace

absl::StatusOr<ChildResult> RunChild(
    const std::vector<std::string>& arguments,
    const std::vector<std::pair<std::string, std::string>>& variables,
    absl::FunctionRef<absl::Status()> poll) {
  const std::string& program = arguments.front();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return SystemError("make a pipe for", program, errno);
  absl::Cleanup close_read_end = [&ends] { ::close(ends[0]); };

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  absl::Cleanup destroy_actions = [&actions] { posix_spawn_file_actions_destroy(&actions); };
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);

  // Signals that this process ignores or holds back are the child's own business.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  absl::Cleanup destroy_attributes = [&attributes] { posix_spawnattr_destroy(&attributes); };
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<std::string> argument_copies = arguments;
  std::vector<std::string> environment = Environment(variables);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, program.c_str(), &actions, &attributes,
                                   Pointers(argument_copies).data(), Pointers(environment).data());
  ::close(ends[1]);
  if (error == ENOENT) return absl::NotFoundError(StrCat(program, " is not installed"));
  if (error != 0) return SystemError("run", program, error);

  Child child(pid);
  ChildResult result;
  while (true) {
    RETURN_IF_ERROR(poll());
    pollfd readable = {ends[0], POLLIN, 0};
    const int n_ready = ::poll(&readable, 1, kPollIntervalMs);
    if (n_ready < 0 && errno != EINTR) return SystemError("wait for", program, errno);
    if (n_ready <= 0) continue;
    char buffer[4096];
    const ssize_t n = ::read(ends[0], buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("read the output of", program, errno);
    if (n == 0) break;  // the child, and what it started, closed their outputs
    result.output.append(buffer, static_cast<size_t>(n));
    if (result.output.size() > kMaxOutputBytes) {
      result.output.erase(0, result.output.size() - kMaxOutputBytes);
    }
  }
  result.exit_status = child.WaitForExitStatus();
  return result;
}

}  // namespace fovea::model_home
