#include "cli/interrupt.h"

#include <csignal>

#include "base/status.h"

namespace fovea::cli {
namespace {

// A signal handler can reach nothing but globals.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void HandleSignal(int signal_number) {
  if (!interrupted.exchange(true)) return;
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = HandleSignal;  // no SA_RESTART: a blocking read notices
  FOVEA_CHECK(sigaction(SIGINT, &action, nullptr) == 0);
  FOVEA_CHECK(sigaction(SIGTERM, &action, nullptr) == 0);
  // Failed writes, which say more than an end by signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

const std::atomic<bool>* InterruptFlag() { return &interrupted; }

bool Interrupted() { return interrupted.load(); }

void ClearInterrupt() { interrupted.store(false); }

}  // namespace fovea::cli
