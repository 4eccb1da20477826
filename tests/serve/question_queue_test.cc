#include "serve/question_queue.h"

#include <future>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::serve {
namespace {

using namespace std::chrono_literals;

// A task that says something, and waits until it is let go or cancelled.
class Held final : public Task {
 public:
  void LetGo() { let_go_ = true; }
  bool has_run() const { return has_run_; }

 private:
  void Run() override {
    has_run_ = true;
    AddText("begun");
    while (!let_go_ && !cancelled()->load()) std::this_thread::sleep_for(1ms);
    AddText("ended");
  }
  std::atomic<bool> let_go_{false};
  std::atomic<bool> has_run_{false};
};

std::string AllText(Task* task) {
  std::string text;
  while (!task->is_done()) text += task->AwaitText(1s);
  return text;
}

TEST(QuestionQueueTest, RefusesWhatIsTooMuch) {
  QuestionQueue queue({.n_running = 1, .n_waiting = 1});
  const auto first = std::make_shared<Held>();
  const auto second = std::make_shared<Held>();
  ASSERT_TRUE(queue.Add(first).ok());
  EXPECT_EQ(first->AwaitText(60s), "begun");
  ASSERT_TRUE(queue.Add(second).ok());
  EXPECT_EQ(queue.Add(std::make_shared<Held>()).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(queue.counts().n_running, 1);
  EXPECT_EQ(queue.counts().n_waiting, 1);
  EXPECT_FALSE(second->has_run());
  first->LetGo();
  second->LetGo();
  EXPECT_EQ(AllText(first.get()), "ended");
  EXPECT_EQ(AllText(second.get()), "begunended");
  EXPECT_TRUE(queue.Add(std::make_shared<Held>()).ok());
}

TEST(QuestionQueueTest, WithoutAPlaceToWaitAFreeThreadStillTakesOne) {
  QuestionQueue queue({.n_running = 2, .n_waiting = 0});
  const auto first = std::make_shared<Held>();
  const auto second = std::make_shared<Held>();
  EXPECT_TRUE(queue.Add(first).ok());
  EXPECT_TRUE(queue.Add(second).ok());
  EXPECT_EQ(queue.Add(std::make_shared<Held>()).code(), absl::StatusCode::kResourceExhausted);
}

TEST(QuestionQueueTest, WhatIsCancelledWhileItWaitsNeverRuns) {
  QuestionQueue queue({.n_running = 1, .n_waiting = 1});
  const auto first = std::make_shared<Held>();
  const auto second = std::make_shared<Held>();
  ASSERT_TRUE(queue.Add(first).ok());
  ASSERT_TRUE(queue.Add(second).ok());
  second->Cancel();
  first->LetGo();
  EXPECT_EQ(AllText(second.get()), "");
  EXPECT_FALSE(second->has_run());
}

TEST(QuestionQueueTest, StopEndsWhatRunsAndWhatWaits) {
  QuestionQueue queue({.n_running = 1, .n_waiting = 4});
  std::vector<std::shared_ptr<Held>> tasks;
  for (int i = 0; i < 4; ++i) {
    tasks.push_back(std::make_shared<Held>());
    ASSERT_TRUE(queue.Add(tasks.back()).ok());
  }
  queue.Stop();
  for (const auto& task : tasks) {
    AllText(task.get());
    EXPECT_TRUE(task->is_done());
  }
  EXPECT_EQ(queue.Add(std::make_shared<Held>()).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace fovea::serve
