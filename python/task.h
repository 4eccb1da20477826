// Work on a thread of its own, for a caller who must stay responsive: the work posts messages, the
// caller takes them, and may cancel. The work knows nothing of Python and never needs its lock.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"

namespace fovea::python {

// What a task is to those who do not wait for its result. Thread-safe.
class AnyTask {
 public:
  virtual ~AnyTask() = default;
  // Asks the work to end at its next safe point.
  void Cancel() { cancelled_ = true; }
  // The same, since what it works with is closed: a result that this cuts off becomes Cancelled.
  // What its own caller has cancelled before is not.
  void CancelByClose() {
    if (!cancelled_) closed_ = true;
    cancelled_ = true;
  }
  const std::atomic<bool>* cancelled() const { return &cancelled_; }
  bool is_closed() const { return closed_; }
  // Waits for the end; what the work held is let go of by then.
  virtual void Join() = 0;

 private:
  std::atomic<bool> closed_{false};  // set before cancelled_
  std::atomic<bool> cancelled_{false};
};

// What a task that CancelByClose has ended gives to those who wait for it.
inline absl::Status ClosedWhileRunning() {
  return absl::CancelledError(
      "the memory was closed while this call ran: what was reported as stored is, and what was "
      "yielded of an answer stands; open the memory again with Memory.open");
}

template <typename Result, typename Message>
class Task final : public AnyTask {
 public:
  using Work = std::function<absl::StatusOr<Result>(Task&)>;

  explicit Task(Work work)
      : thread_([this, work = std::move(work)]() mutable {
          absl::StatusOr<Result> result = Carry(std::exchange(work, nullptr));
          const std::lock_guard lock(mutex_);
          result_.emplace(std::move(result));
          changed_.notify_all();
        }) {}
  ~Task() override {
    Cancel();
    if (getpid() == process_) {
      Join();
    } else {
      thread_.detach();  // a child of fork() has no such thread
    }
  }

  void Join() override {
    const std::lock_guard lock(join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

  // By the work.
  void Post(Message message) {
    const std::lock_guard lock(mutex_);
    messages_.push_back(std::move(message));
    changed_.notify_all();
  }

  // By the caller: waits for messages or the end, `most` at most, and takes the messages.
  std::vector<Message> Take(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, most, [&] { return !messages_.empty() || result_.has_value(); });
    return std::exchange(messages_, {});
  }
  // Whether the work has ended and all messages were taken.
  bool IsDone() const {
    const std::lock_guard lock(mutex_);
    return result_.has_value() && messages_.empty();
  }
  // Requires IsDone().
  const absl::StatusOr<Result>& result() const { return *result_; }

 private:
  // `work` is gone when this returns, and with it what it holds.
  absl::StatusOr<Result> Carry(Work work) {
    try {
      absl::StatusOr<Result> result = work(*this);
      if (is_closed() && absl::IsCancelled(result.status())) return ClosedWhileRunning();
      return result;
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("out of memory");
    } catch (const std::exception& error) {  // what libraries throw where no adapter expects it
      return absl::InternalError(error.what());
    }
  }

  const pid_t process_ = getpid();
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Message> messages_;
  std::optional<absl::StatusOr<Result>> result_;  // set once, at the end
  std::mutex join_mutex_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace fovea::python
