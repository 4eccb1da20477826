#include "serve/question_queue.h"

#include <algorithm>
#include <utility>

namespace fovea::serve {

std::string Task::AwaitText(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return is_done_ || !text_.empty(); });
  return std::exchange(text_, {});
}

bool Task::is_done() const {
  const std::lock_guard lock(mutex_);
  return is_done_ && text_.empty();
}

void Task::AddText(std::string_view text) {
  const std::lock_guard lock(mutex_);
  text_ += text;
  changed_.notify_all();
}

void Task::Finish() {
  const std::lock_guard lock(mutex_);
  is_done_ = true;
  changed_.notify_all();
}

Question::Question(const answer::Answerer* answerer, answer::Request request)
    : answerer_(answerer), request_(std::move(request)) {
  request_.stream = [this](std::string_view piece) {
    AddText(piece);
    return true;
  };
  request_.progress = Progress(nullptr, cancelled());
}

void Question::Run() { answer_ = answerer_->Run(request_); }

PassageSearch::PassageSearch(const answer::Answerer* answerer, answer::SearchRequest request)
    : answerer_(answerer), request_(std::move(request)) {
  request_.progress = Progress(nullptr, cancelled());
}

void PassageSearch::Run() { passages_ = answerer_->Search(request_); }

QuestionQueue::QuestionQueue(const QuestionQueueOptions& options) : options_(options) {
  for (int i = 0; i < options.n_running; ++i) threads_.emplace_back([this] { Work(); });
}

QuestionQueue::~QuestionQueue() { Stop(); }

absl::Status QuestionQueue::Add(std::shared_ptr<Task> task) {
  const std::lock_guard lock(mutex_);
  if (is_stopped_) return absl::UnavailableError("the server is stopping");
  // Those for which a thread is free do not wait.
  const size_t n_free = static_cast<size_t>(options_.n_running) - running_.size();
  if (waiting_.size() >= n_free + static_cast<size_t>(options_.n_waiting)) {
    return absl::ResourceExhaustedError(StrCat(running_.size(),
                                               " questions are being answered and ",
                                               waiting_.size(), " wait: ask again later"));
  }
  waiting_.push_back(std::move(task));
  changed_.notify_one();
  return absl::OkStatus();
}

void QuestionQueue::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return is_stopped_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::shared_ptr<Task> task = std::move(waiting_.front());
    waiting_.pop_front();
    running_.push_back(task);
    lock.unlock();
    if (!task->cancelled()->load()) task->Run();
    lock.lock();
    // Counted as free before its client can ask again.
    std::erase(running_, task);
    lock.unlock();
    task->Finish();
    lock.lock();
  }
}

void QuestionQueue::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    for (const auto& task : running_) task->Cancel();
    for (const auto& task : waiting_) task->Cancel();
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

QuestionQueue::Counts QuestionQueue::counts() const {
  const std::lock_guard lock(mutex_);
  return {.n_running = running_.size(), .n_waiting = waiting_.size()};
}

}  // namespace fovea::serve
