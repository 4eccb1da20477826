// One model that many requests use. Its weights are shared by threads, but Transformer::Forward
// runs on one device with one workspace, which serve one thread at a time: requests take turns,
// step by step, a piece of a prompt or a token. A long prompt holds up the tokens of others for no
// longer than a piece.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "model/transformer.h"

namespace fovea::answer {

// Thread-safe.
class SharedModel {
 public:
  // The model for one step; given up with the object.
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

  // `model` outlives this, and is used through it alone.
  explicit SharedModel(model::Transformer* model) : model_(model) {}

  // Waits for those that came before. Not to be called by a thread that has a turn.
  Turn TakeTurn() const {
    std::unique_lock lock(mutex_);
    const uint64_t ticket = next_ticket_++;
    ended_.wait(lock, [&] { return serving_ == ticket; });
    return Turn(this);
  }

  // What never changes can be read without a turn.
  const model::ModelConfig& config() const { return model_->config(); }
  const model::MemoryConfig& memory_config() const { return model_->memory_config(); }
  const model::Tokenizer& tokenizer() const { return model_->tokenizer(); }
  const model::Transformer& constant() const { return *model_; }

 private:
  void EndTurn() const {
    {
      const std::lock_guard lock(mutex_);
      ++serving_;
    }
    ended_.notify_all();
  }

  model::Transformer* model_;
  // A mutex alone would let the thread that gave a turn up take the next one, too.
  mutable std::mutex mutex_;
  mutable std::condition_variable ended_;
  mutable uint64_t next_ticket_ = 0;
  mutable uint64_t serving_ = 0;
};

}  // namespace fovea::answer
