// How Python waits for a task: without its lock, so that other threads of Python run, and so that
// Ctrl-C is noticed.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <memory>
#include <vector>

#include "python/errors.h"
#include "python/task.h"

namespace fovea::python {

// How often signals are looked for. Messages and the end wake the caller at once.
inline constexpr std::chrono::milliseconds kSignalPause(50);

// Messages of the task, as soon as there are some; none at its end. A signal whose handler raises
// (KeyboardInterrupt) cancels the task, waits for it, and is raised.
template <typename Result, typename Message>
std::vector<Message> TakeMessages(Task<Result, Message>& task) {
  for (;;) {
    std::vector<Message> messages;
    {
      const nanobind::gil_scoped_release release;
      messages = task.Take(kSignalPause);
    }
    if (PyErr_CheckSignals() != 0) {
      const nanobind::python_error raised;  // taken before the lock is let go
      {
        const nanobind::gil_scoped_release release;
        task.Cancel();
        task.Join();
      }
      throw raised;
    }
    if (!messages.empty() || task.IsDone()) return messages;
  }
}

// The result, after `on_message` was called for each message, on this thread. What it raises
// cancels the task and is raised when that has ended.
template <typename Result, typename Message, typename OnMessage>
Result Await(Task<Result, Message>& task, const OnMessage& on_message) {
  for (;;) {
    const std::vector<Message> messages = TakeMessages(task);
    if (messages.empty()) return ValueOrThrow(task.result());
    try {
      for (const Message& message : messages) on_message(message);
    } catch (...) {
      const nanobind::gil_scoped_release release;
      task.Cancel();
      task.Join();
      throw;
    }
  }
}

}  // namespace fovea::python
