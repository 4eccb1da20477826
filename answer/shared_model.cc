#include "answer/shared_model.h"

#include <algorithm>
#include <limits>
#include <span>

#include "model/memory_source.h"

namespace fovea::answer {
namespace {

using Clock = std::chrono::steady_clock;

// A batch waits for steps that are about to come for no longer than this part of a step: what is
// lost when one of them does not come, since its answer has ended, is small beside what a whole
// step by itself would take.
constexpr int kAwaitedPartOfStep = 4;

// A memory whose error ends its own sequence only: others of the batch go on.
class LoneMemory final : public model::MemorySource {
 public:
  LoneMemory(compute::Device* device, model::MemorySource* memory)
      : device_(device), memory_(memory) {}

  model::MemoryPlace place() const override { return memory_->place(); }

  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override {
    if (status_.ok()) status_ = memory_->Attend(query, output, lse);
    return status_.ok() ? absl::OkStatus() : FindNothing(query, output, lse);
  }

  // The memories of a batch are all of this kind.
  void AttendTogether(std::span<model::MemoryRequest> requests) override {
    std::vector<model::MemoryRequest> asked;
    std::vector<LoneMemory*> askers;
    for (const model::MemoryRequest& request : requests) {
      auto* const lone = static_cast<LoneMemory*>(request.memory);
      if (!lone->status_.ok()) continue;
      asked.push_back(request);
      asked.back().memory = lone->memory_;
      askers.push_back(lone);
    }
    if (!asked.empty()) asked[0].memory->AttendTogether(asked);
    for (size_t i = 0; i < asked.size(); ++i) askers[i]->status_ = asked[i].status;
    for (model::MemoryRequest& request : requests) {
      auto* const lone = static_cast<LoneMemory*>(request.memory);
      if (lone->status_.ok()) continue;
      request.status = lone->FindNothing(request.query, request.output, request.lse);
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  absl::Status FindNothing(const model::MemoryQuery& query, float* output, float* lse) const {
    // Nothing found. What comes of it is thrown away.
    const int64_t n = query.n_queries * query.n_heads;
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    if (place() == model::MemoryPlace::kHost) {
      std::fill_n(output, n * query.head_dim, 0.0f);
      std::fill_n(lse, n, kNothing);
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(device_->Fill(0.0f, n * query.head_dim, output));
    return device_->Fill(kNothing, n, lse);
  }

  compute::Device* device_;
  model::MemorySource* memory_;
  absl::Status status_;
};

// Runs the sequences together; statuses: one for each.
std::vector<absl::Status> RunTogether(const model::Transformer& model, compute::Device* device,
                                      std::span<const model::Sequence* const> sequences,
                                      model::Workspace* workspace) {
  const size_t n = sequences.size();
  if (n == 1) return {model.Run(*device, {sequences[0], 1}, workspace)};
  std::vector<model::Sequence> batch;
  std::vector<int64_t> n_before;
  std::deque<LoneMemory> memories;  // whose addresses stay
  for (const model::Sequence* sequence : sequences) {
    model::Sequence& own = batch.emplace_back(*sequence);
    n_before.push_back(own.context->n_tokens());
    if (own.memory != nullptr) own.memory = &memories.emplace_back(device, own.memory);
  }
  std::vector<absl::Status> statuses(n, model.Run(*device, batch, workspace));
  if (!statuses[0].ok()) return statuses;
  size_t next_memory = 0;
  for (size_t i = 0; i < n; ++i) {
    if (batch[i].memory == nullptr) continue;
    statuses[i] = memories[next_memory++].status();
    if (!statuses[i].ok()) batch[i].context->Truncate(n_before[i]);
  }
  return statuses;
}

}  // namespace

absl::Status SharedModel::Run(const model::Sequence& sequence) const {
  Job job{.sequence = &sequence};
  std::unique_lock lock(mutex_);
  waiting_.push_back(&job);
  changed_.notify_all();  // a batch may be waiting for this step
  while (!job.is_done) {
    if (is_busy_ || waiting_.front()->sequence == nullptr) {
      changed_.wait(lock);
    } else {
      RunBatch(&lock);
    }
  }
  return std::move(job.status);
}

void SharedModel::RunBatch(std::unique_lock<std::mutex>* lock) const {
  is_busy_ = true;
  std::vector<Job*> batch;
  const bool are_steps = waiting_.front()->is_step() || (was_piece_ && n_waiting_steps() > 0);
  if (are_steps) {
    AwaitSteps(lock);
    for (auto job = waiting_.begin(); job != waiting_.end() && batch.size() < max_batch_;) {
      if ((*job)->is_step()) {
        batch.push_back(*job);
        job = waiting_.erase(job);
      } else {
        ++job;
      }
    }
  } else {
    batch.push_back(waiting_.front());
    waiting_.pop_front();
  }
  was_piece_ = !are_steps;
  std::vector<const model::Sequence*> sequences;
  sequences.reserve(batch.size());
  for (const Job* job : batch) sequences.push_back(job->sequence);

  lock->unlock();
  const Clock::time_point begin = Clock::now();
  std::vector<absl::Status> statuses =
      RunTogether(*model_, model_->device(), sequences, &workspace_);
  const Clock::duration taken = Clock::now() - begin;
  lock->lock();

  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i]->status = std::move(statuses[i]);
    batch[i]->is_done = true;
  }
  if (are_steps) {
    ++statistics_.n_batches;
    statistics_.n_steps += static_cast<int64_t>(batch.size());
    step_ = taken;
    n_expected_ = std::min(batch.size() + n_waiting_steps(), max_batch_);
  }
  is_busy_ = false;
  changed_.notify_all();
}

void SharedModel::AwaitSteps(std::unique_lock<std::mutex>* lock) const {
  if (n_waiting_steps() >= n_expected_) return;
  changed_.wait_until(*lock, Clock::now() + step_ / kAwaitedPartOfStep,
                      [&] { return n_waiting_steps() >= n_expected_; });
}

size_t SharedModel::n_waiting_steps() const {
  return static_cast<size_t>(std::count_if(waiting_.begin(), waiting_.end(),
                                           [](const Job* job) { return job->is_step(); }));
}

SharedModel::Turn SharedModel::TakeTurn() const {
  Job job;
  std::unique_lock lock(mutex_);
  waiting_.push_back(&job);
  changed_.wait(lock, [&] { return !is_busy_ && waiting_.front() == &job; });
  waiting_.pop_front();
  is_busy_ = true;
  return Turn(this);
}

void SharedModel::EndTurn() const {
  const std::lock_guard lock(mutex_);
  is_busy_ = false;
  changed_.notify_all();
}

SharedModel::Statistics SharedModel::statistics() const {
  const std::lock_guard lock(mutex_);
  Statistics statistics = statistics_;
  statistics.n_waiting = static_cast<int64_t>(waiting_.size());
  return statistics;
}

}  // namespace fovea::answer
