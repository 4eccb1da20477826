// What the local context of LongLLaMA's inference overflows into: a stored memory, searched, with
// the session's own tokens beside it; or, without one, the session's tokens alone.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "answer/prompt_context.h"
#include "base/progress.h"
#include "memory/search/searcher.h"
#include "model/dense_memory.h"

namespace fovea::answer {

// Entries that a session adds are kept in the type that stored ones have, or without a stored
// memory in the model's (MemoryConfig::entry_type).
class ReferenceMemory final : public RewindableMemory {
 public:
  // `searcher` may be null (no stored memory), else it outlives this.
  // `progress` is asked by each memory layer of each window.
  ReferenceMemory(compute::Device* device, memory::MemorySearcher* searcher, EntryType type,
                  Progress progress = {})
      : device_(device), searcher_(searcher), type_(type), progress_(std::move(progress)) {
    n_session_windows_ = searcher_ != nullptr ? searcher_->n_session_windows() : 0;
    Rewind();
  }

  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override {
    RETURN_IF_ERROR(progress_.CheckCancelled());
    return searcher_ != nullptr ? searcher_->Attend(query, output, lse)
                                : alone_->Attend(query, output, lse);
  }

  absl::Status Append(model::MemoryEntries entries) override {
    n_appended_ += entries.n_tokens;
    if (searcher_ == nullptr) return alone_->Append(std::move(entries));
    searcher_->AddSessionWindow(model::ToEncodedWindow(std::move(entries), type_));
    return absl::OkStatus();
  }

  int64_t n_tokens() const override {
    return n_appended_ + (searcher_ != nullptr ? static_cast<int64_t>(searcher_->n_tokens()) : 0);
  }

  void Rewind() override {
    n_appended_ = 0;
    if (searcher_ != nullptr) searcher_->TruncateSessionWindows(n_session_windows_);
    if (searcher_ == nullptr) alone_.emplace(device_, type_);
  }

 private:
  compute::Device* device_;
  memory::MemorySearcher* searcher_;
  EntryType type_;
  Progress progress_;
  std::optional<model::DenseMemory> alone_;
  size_t n_session_windows_ = 0;  // a conversation's, from before
  int64_t n_appended_ = 0;
};

}  // namespace fovea::answer
