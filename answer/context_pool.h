// Local contexts that requests use one after the other: a new one would allocate, and touch for the
// first time, tens of megabytes for each question. A context keeps the room of the longest prompt
// that it has had, so that those of a rush of requests are not kept: its memory would grow for as
// long as it lasts.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "answer/prompt_context.h"

namespace fovea::answer {

// Thread-safe. The device of the model that the contexts ran on outlives it.
class ContextPool {
 public:
  // Empty when it is lent; goes back with the object.
  class Lease {
   public:
    Lease(ContextPool* pool, std::unique_ptr<PromptContext> context)
        : pool_(pool), context_(std::move(context)) {}
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (context_ != nullptr) pool_->Return(std::move(context_));
    }
    PromptContext* get() const { return context_.get(); }

   private:
    ContextPool* pool_;
    std::unique_ptr<PromptContext> context_;
  };

  Lease Lend() {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<PromptContext> context;
    if (idle_.empty()) {
      context = std::make_unique<PromptContext>();
    } else {
      context = std::move(idle_.back());
      idle_.pop_back();
    }
    ++n_lent_;
    return {this, std::move(context)};
  }

  // Contexts that stay, lent or idle: those of a batch. Further ones go when they come back.
  static constexpr size_t kMaxKept = SharedModel::kMaxBatch;

  size_t n_idle() const {
    const std::lock_guard lock(mutex_);
    return idle_.size();
  }

 private:
  void Return(std::unique_ptr<PromptContext> context) {
    context->UseReference(nullptr);
    context->Clear();
    const std::lock_guard lock(mutex_);
    --n_lent_;
    if (n_lent_ + idle_.size() < kMaxKept) idle_.push_back(std::move(context));
  }

  mutable std::mutex mutex_;
  size_t n_lent_ = 0;
  std::vector<std::unique_ptr<PromptContext>> idle_;
};

}  // namespace fovea::answer
