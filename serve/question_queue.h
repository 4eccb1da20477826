// Questions that wait for their turn, and the threads that answer them. At most `n_running` are
// answered at a time; the steps of those go through the model together (answer/shared_model.h), so
// that a question joins the others at their next token. The rest waits, in the order of arrival,
// and when too many wait a question is refused.
//
// What it does not do: a question that runs is not put aside for another one, and prompts are not
// joined with the steps of others but run between them, in pieces.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "answer/answerer.h"
#include "base/status.h"

namespace fovea::serve {

struct QuestionQueueOptions {
  int n_running = 16;
  int n_waiting = 256;
};

// Work that was asked for by a client: a question, or a search. Thread-safe: one thread carries it
// out, another one waits for it.
class Task {
 public:
  // What the work looks at: the client does not want it any more, or the server stops.
  const std::atomic<bool>* cancelled() const { return &cancelled_; }
  void Cancel() { cancelled_ = true; }

  // Waits until there is more text, or the end, for at most `timeout`; returns the new text. The
  // end is known by is_done(), after which nothing follows.
  std::string AwaitText(std::chrono::milliseconds timeout);
  bool is_done() const;

 protected:
  friend class QuestionQueue;
  virtual ~Task() = default;
  virtual void Run() = 0;  // by the queue's thread
  void AddText(std::string_view text);

 private:
  void Finish();

  std::atomic<bool> cancelled_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;  // that nobody has taken
  bool is_done_ = false;
};

class Question final : public Task {
 public:
  // request.stream and request.progress are set here.
  Question(const answer::Answerer* answerer, answer::Request request);
  // Once is_done().
  const absl::StatusOr<answer::Answer>& answer() const { return answer_; }

 private:
  void Run() override;
  const answer::Answerer* answerer_;
  answer::Request request_;
  absl::StatusOr<answer::Answer> answer_ =
      absl::CancelledError("the question was not begun: the server stops");
};

class PassageSearch final : public Task {
 public:
  PassageSearch(const answer::Answerer* answerer, answer::SearchRequest request);
  const absl::StatusOr<std::vector<memory::Passage>>& passages() const { return passages_; }

 private:
  void Run() override;
  const answer::Answerer* answerer_;
  answer::SearchRequest request_;
  absl::StatusOr<std::vector<memory::Passage>> passages_ =
      absl::CancelledError("the search was not begun: the server stops");
};

// Thread-safe.
class QuestionQueue {
 public:
  explicit QuestionQueue(const QuestionQueueOptions& options);
  ~QuestionQueue();
  QuestionQueue(const QuestionQueue&) = delete;
  QuestionQueue& operator=(const QuestionQueue&) = delete;

  // ResourceExhausted: too many wait already. Unavailable: it was stopped.
  absl::Status Add(std::shared_ptr<Task> task);

  // Cancels what runs and what waits: answers end at their next token. Waits for that.
  void Stop();

  struct Counts {
    size_t n_running = 0;
    size_t n_waiting = 0;
  };
  Counts counts() const;

 private:
  void Work();

  const QuestionQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> waiting_;
  std::vector<std::shared_ptr<Task>> running_;
  bool is_stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace fovea::serve
