// Ctrl-C: the first one asks the work to stop at a safe point, the second one ends the process.
#pragma once

#include <atomic>

namespace fovea::cli {

// Handles SIGINT and SIGTERM from now on, and ignores SIGPIPE and SIGXFSZ (a closed pipe and a file
// at its `ulimit -f` are failed writes).
// Reads of standard input return EINTR on a signal. Call once.
void InstallSignalHandlers();

// Set by the first signal; what `Progress` asks.
const std::atomic<bool>* InterruptFlag();
bool Interrupted();
// Ready for the next one (a conversation goes on after an interrupted answer).
void ClearInterrupt();

}  // namespace fovea::cli
