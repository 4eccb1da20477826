// Work of an ingest that goes on while it reads on.
#pragma once

#include <future>
#include <system_error>
#include <utility>

namespace fovea::memory {

// task() on a thread of its own; where none is to be had, when the result is asked for. Destroying
// the future waits.
template <typename Task>
auto InBackground(Task task) {
  try {
    return std::async(std::launch::async, task);
  } catch (const std::system_error&) {
    return std::async(std::launch::deferred, std::move(task));
  }
}

}  // namespace fovea::memory
