// Local contexts that requests use one after the other: a new one would allocate, and touch for the
// first time, tens of megabytes for each question.
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
    if (idle_.empty()) return {this, std::make_unique<PromptContext>()};
    std::unique_ptr<PromptContext> context = std::move(idle_.back());
    idle_.pop_back();
    return {this, std::move(context)};
  }

 private:
  // Those of a batch; what a greater rush of requests needed is freed after it.
  static constexpr size_t kMaxIdle = SharedModel::kMaxBatch;

  void Return(std::unique_ptr<PromptContext> context) {
    context->UseReference(nullptr);
    context->Clear();
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kMaxIdle) idle_.push_back(std::move(context));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<PromptContext>> idle_;
};

}  // namespace fovea::answer
