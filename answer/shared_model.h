// One model that many requests use, on one device with one workspace. What they want to be run
// waits in a queue. Steps of one token that wait at the same time are run together: the weights are
// read once for all of them, and each answer's tokens come nearly as fast as if it were made alone
// (continuous batching; Yu et al., Orca, OSDI 2022, section 4). Pieces of prompts run one at a
// time, and steps that wait come before the next one, so that prompts, long or many, hold up the
// answers of others for no longer than a piece a batch.
//
// No thread is needed for that: the first thread whose work waits while the model is idle runs the
// batch at the head of the queue, whoever's it is.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "base/status.h"
#include "model/sequence.h"
#include "model/transformer.h"

namespace fovea::answer {

// Thread-safe.
class SharedModel {
 public:
  // Steps that are run together at most, whatever the model allows: more would save little of
  // reading weights, and every answer would wait for all of them.
  static constexpr size_t kMaxBatch = 16;

  // `model` outlives this, and its device is used through this alone. Makes steps ready, so that
  // the first answer is made from the same weights as all others.
  explicit SharedModel(model::Transformer* model)
      : model_(model),
        max_batch_(std::min(kMaxBatch, static_cast<size_t>(model->max_steps_as_alone()))) {
    model_->PrepareSteps();
  }

  // Steps that are run together at most: so few that an answer does not depend on who asks beside
  // it.
  size_t max_batch() const { return max_batch_; }

  // What Transformer::Run does with one sequence, when its turn has come. A memory's error is its
  // own sequence's; any other is that of all that were run together. `sequence.memory` may be
  // called by a thread that is running another request's step.
  absl::Status Run(const model::Sequence& sequence) const;

  // The model for something else; given up with the object. The thread calls Run only after that.
  class Turn {
   public:
    explicit Turn(const SharedModel* model) : model_(model) {}
    Turn(Turn&& other) noexcept : model_(std::exchange(other.model_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (model_ != nullptr) model_->EndTurn();
    }
    model::Transformer* get() const { return model_->model_; }
    model::Transformer* operator->() const { return get(); }

   private:
    const SharedModel* model_;
  };
  Turn TakeTurn() const;

  // What never changes can be read at any time.
  const model::ModelConfig& config() const { return model_->config(); }
  const model::MemoryConfig& memory_config() const { return model_->memory_config(); }
  const model::Tokenizer& tokenizer() const { return model_->tokenizer(); }
  const model::Transformer& constant() const { return *model_; }

  struct Statistics {
    int64_t n_batches = 0;  // of steps, so far
    int64_t n_steps = 0;    // in them
    int64_t n_waiting = 0;  // steps, pieces and turns that wait now
  };
  Statistics statistics() const;

 private:
  struct Job {
    const model::Sequence* sequence = nullptr;  // null: a turn
    absl::Status status = absl::OkStatus();
    bool is_done = false;
    bool is_step() const { return sequence != nullptr && sequence->ids.size() == 1; }
  };

  // Runs the batch at the head of the queue, or steps from behind it; the lock is released
  // meanwhile.
  void RunBatch(std::unique_lock<std::mutex>* lock) const;
  // Waits a little for those of the last batch that are still sampling.
  void AwaitSteps(std::unique_lock<std::mutex>* lock) const;
  size_t n_waiting_steps() const;
  void EndTurn() const;

  model::Transformer* const model_;
  const size_t max_batch_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  // All below under the mutex, the workspace by who made it busy.
  mutable std::deque<Job*> waiting_;
  mutable bool is_busy_ = false;    // a batch is being run or gathered, or somebody has a turn
  mutable bool was_piece_ = false;  // the last batch was a piece of a prompt
  mutable model::Workspace workspace_;
  mutable size_t n_expected_ = 1;                       // steps that should come together
  mutable std::chrono::steady_clock::duration step_{};  // how long the last batch of steps took
  mutable Statistics statistics_;                       // but for n_waiting
};

}  // namespace fovea::answer
