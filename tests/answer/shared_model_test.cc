// Requests that share a model: what waits together is run together, and nobody notices but by time.
#include "answer/shared_model.h"

#include <atomic>
#include <functional>
#include <limits>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

using model::LocalContext;
using model::MemoryQuery;

// Finds nothing, and fails in the n-th layer that it is asked in (0: never).
class FailingMemory final : public model::MemorySource {
 public:
  explicit FailingMemory(int fails_at) : fails_at_(fails_at) {}
  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override {
    if (++n_asked == fails_at_) return absl::CancelledError("no more");
    std::fill_n(output, query.n_queries * query.n_heads * query.head_dim, 0.0f);
    std::fill_n(lse, query.n_queries * query.n_heads, -std::numeric_limits<float>::infinity());
    return absl::OkStatus();
  }
  int n_asked = 0;

 private:
  int fails_at_;
};

class SharedModelTest : public TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    LoadModel();
    shared_ = std::make_unique<SharedModel>(model_.get());
  }
  void TearDown() override {
    shared_.reset();
    TinyMemoryTest::TearDown();
  }

  // A prompt of a length of its own for each i, run.
  LocalContext Prompt(int i) {
    std::vector<int32_t> ids;
    for (int token = 0; token < 5 + 7 * i; ++token) ids.push_back(3 + (token * 13 + i) % 200);
    LocalContext context;
    const absl::Status status = shared_->Run({.ids = ids, .context = &context});
    EXPECT_TRUE(status.ok()) << status;
    return context;
  }

  // Begins all jobs, each on a thread of its own, while the model is taken, so that they wait
  // together; and gives it up.
  void RunTogether(const std::vector<std::function<void()>>& jobs) {
    std::vector<std::thread> threads;
    {
      const SharedModel::Turn turn = shared_->TakeTurn();
      for (const auto& job : jobs) {
        const auto n_before = shared_->statistics().n_waiting;
        threads.emplace_back(job);
        while (shared_->statistics().n_waiting == n_before) std::this_thread::yield();
      }
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<SharedModel> shared_;
};

TEST_F(SharedModelTest, StepsThatWaitTogetherAreRunTogetherAndComeToTheSame) {
  const auto kSteps = static_cast<int>(shared_->max_batch()) + 3;  // more than a batch
  std::vector<LocalContext> alone, together;
  std::vector<std::vector<float>> want(kSteps), got(kSteps);
  const auto id = [](int i) { return int32_t{40} + i; };
  for (int i = 0; i < kSteps; ++i) {
    alone.push_back(Prompt(i));
    together.push_back(Prompt(i));
  }
  for (int i = 0; i < kSteps; ++i) {
    const int32_t next = id(i);
    ASSERT_TRUE(shared_->Run({.ids = {&next, 1}, .context = &alone[i], .logits = &want[i]}).ok());
  }
  const SharedModel::Statistics before = shared_->statistics();
  EXPECT_EQ(before.n_steps, kSteps);
  EXPECT_EQ(before.n_batches, kSteps);  // one after the other
  std::vector<std::function<void()>> jobs;
  for (int i = 0; i < kSteps; ++i) {
    jobs.emplace_back([&, i] {
      const int32_t next = id(i);
      const absl::Status status =
          shared_->Run({.ids = {&next, 1}, .context = &together[i], .logits = &got[i]});
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  RunTogether(jobs);
  const SharedModel::Statistics after = shared_->statistics();
  EXPECT_EQ(after.n_steps - before.n_steps, kSteps);
  EXPECT_EQ(after.n_batches - before.n_batches, 2);
  EXPECT_EQ(after.n_waiting, 0);
  for (int i = 0; i < kSteps; ++i) {
    EXPECT_EQ(got[i], want[i]) << i;
    EXPECT_EQ(together[i].n_tokens(), alone[i].n_tokens());
  }
}

TEST_F(SharedModelTest, AMemorysErrorIsThatOfItsSequence) {
  constexpr int kSteps = 3;
  std::vector<LocalContext> contexts, alone;
  std::vector<FailingMemory> memories = {FailingMemory(0), FailingMemory(1), FailingMemory(2)};
  std::vector<std::vector<float>> got(kSteps), want(kSteps);
  std::vector<absl::Status> statuses(kSteps);
  const int32_t next = 50;
  for (int i = 0; i < kSteps; ++i) {
    contexts.push_back(Prompt(i));
    alone.push_back(Prompt(i));
    FailingMemory memory(0);
    ASSERT_TRUE(
        shared_
            ->Run({.ids = {&next, 1}, .context = &alone[i], .memory = &memory, .logits = &want[i]})
            .ok());
    EXPECT_EQ(memory.n_asked, 2);
  }
  std::vector<std::function<void()>> jobs;
  for (int i = 0; i < kSteps; ++i) {
    jobs.emplace_back([&, i] {
      statuses[i] = shared_->Run(
          {.ids = {&next, 1}, .context = &contexts[i], .memory = &memories[i], .logits = &got[i]});
    });
  }
  RunTogether(jobs);
  EXPECT_EQ(shared_->statistics().n_batches, kSteps + 1);
  EXPECT_TRUE(statuses[0].ok()) << statuses[0];
  EXPECT_EQ(got[0], want[0]);
  EXPECT_TRUE(absl::IsCancelled(statuses[1])) << statuses[1];
  EXPECT_TRUE(absl::IsCancelled(statuses[2])) << statuses[2];
  EXPECT_EQ(memories[1].n_asked, 1);  // once it has failed it is left alone
  EXPECT_EQ(memories[2].n_asked, 2);
  // As they were before: the same step comes to what it would have come to.
  for (int i = 1; i < kSteps; ++i) {
    EXPECT_EQ(contexts[i].n_tokens(), alone[i].n_tokens() - 1);
    FailingMemory memory(0);
    ASSERT_TRUE(
        shared_
            ->Run(
                {.ids = {&next, 1}, .context = &contexts[i], .memory = &memory, .logits = &got[i]})
            .ok());
    EXPECT_EQ(got[i], want[i]);
  }
}

TEST_F(SharedModelTest, PiecesOfPromptsRunByThemselves) {
  LocalContext step = Prompt(1);
  LocalContext other_step = Prompt(2);
  LocalContext pieces[2];
  const std::vector<int32_t> ids(20, 60);
  std::atomic<int> n_done{0};
  const auto job = [&](LocalContext* context, size_t n) {
    return [&, context, n] {
      const absl::Status status =
          shared_->Run({.ids = std::span(ids).first(n), .context = context});
      EXPECT_TRUE(status.ok()) << status;
      ++n_done;
    };
  };
  RunTogether({job(&pieces[0], 20), job(&step, 1), job(&pieces[1], 20), job(&other_step, 1)});
  EXPECT_EQ(n_done, 4);
  EXPECT_EQ(shared_->statistics().n_steps, 2);
  EXPECT_EQ(shared_->statistics().n_batches, 1);
  EXPECT_EQ(pieces[0].n_tokens(), 20);
  EXPECT_EQ(pieces[1].n_tokens(), 20);
}

// Finds nothing, and notes who asks.
class NotingMemory final : public model::MemorySource {
 public:
  NotingMemory(char name, std::string* order) : name_(name), order_(order) {}
  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override {
    if (query.memory_layer == 0) *order_ += name_;  // by one run at a time
    return nothing_.Attend(query, output, lse);
  }

 private:
  char name_;
  std::string* order_;
  FailingMemory nothing_{0};
};

TEST_F(SharedModelTest, AStepThatWaitsComesBeforeTheSecondPieceThatDoes) {
  LocalContext pieces[3], context = Prompt(2), other = Prompt(1);
  std::string order;
  NotingMemory memories[] = {
      {'a', &order}, {'b', &order}, {'c', &order}, {'s', &order}, {'t', &order}};
  const auto job = [&](LocalContext* to, size_t n_tokens, NotingMemory* memory) {
    return [this, to, n_tokens, memory] {
      const std::vector<int32_t> ids(n_tokens, 60);
      const absl::Status status = shared_->Run({.ids = ids, .context = to, .memory = memory});
      EXPECT_TRUE(status.ok()) << status;
    };
  };
  LocalContext before = Prompt(0);
  FailingMemory nothing(0);
  const int32_t id = 60;
  ASSERT_TRUE(shared_->Run({.ids = {&id, 1}, .context = &before, .memory = &nothing}).ok());
  RunTogether({job(&pieces[0], 20, &memories[0]), job(&pieces[1], 20, &memories[1]),
               job(&pieces[2], 20, &memories[2]), job(&context, 1, &memories[3]),
               job(&other, 1, &memories[4])});
  EXPECT_EQ(order, "astbc");
}

TEST_F(SharedModelTest, WhatDoesNotFitIsAnErrorAndTheModelIsFreeAgain) {
  const std::vector<int32_t> ids(kMaxPositions + 1, 60);
  LocalContext context;
  EXPECT_TRUE(absl::IsResourceExhausted(shared_->Run({.ids = ids, .context = &context})));
  EXPECT_EQ(context.n_tokens(), 0);
  LocalContext next = Prompt(0);
  EXPECT_EQ(next.n_tokens(), 5);
}

}  // namespace
}  // namespace fovea::answer
