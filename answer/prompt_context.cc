#include "answer/prompt_context.h"

#include <algorithm>
#include <cstddef>

namespace fovea::answer {
namespace {

// Ids run at once: large enough for full matrix speed, small enough that Ctrl-C is felt.
constexpr size_t kPieceTokens = 512;

}  // namespace

void PromptContext::Clear() {
  context_.Clear();
  ids_.clear();
  reference_.reset();
}

void PromptContext::UseReference(RewindableMemory* memory) {
  if (memory != reference_memory_) Clear();
  reference_memory_ = memory;
}

absl::Status PromptContext::Run(std::span<const int32_t> ids, const SharedModel& model,
                                model::MemorySource* memory, std::vector<float>* logits,
                                const Progress& progress) {
  if (ids.empty()) return absl::InvalidArgumentError("the prompt is empty: nothing to go on from");
  if (reference_memory_ != nullptr) {
    // What an earlier prompt moved to the memory is not this one's.
    reference_memory_->Rewind();
    ids_.assign(ids.begin(), ids.end());
    const SharedModel::Turn turn = model.TakeTurn();
    reference_ = std::make_unique<model::ReferenceSession>(turn.get(), reference_memory_);
    RETURN_IF_ERROR(progress.CheckCancelled());
    return reference_->Run({.ids = ids}, logits);
  }
  const auto [mismatch, unused] = std::mismatch(ids_.begin(), ids_.end(), ids.begin(), ids.end());
  const size_t n_common = std::min(static_cast<size_t>(mismatch - ids_.begin()), ids.size() - 1);
  ids_.resize(n_common);
  context_.Truncate(static_cast<int64_t>(n_common));

  for (size_t begin = n_common; begin < ids.size(); begin += kPieceTokens) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    const size_t n = std::min(kPieceTokens, ids.size() - begin);
    const bool last = begin + n == ids.size();
    RETURN_IF_ERROR(
        Forward(ids.subspan(begin, n), model, memory, last ? logits : nullptr, nullptr));
  }
  return absl::OkStatus();
}

absl::Status PromptContext::Append(int32_t id, const SharedModel& model,
                                   model::MemorySource* memory, std::vector<float>* logits,
                                   int32_t* best_id) {
  if (reference_ == nullptr) return Forward({&id, 1}, model, memory, logits, best_id);
  const SharedModel::Turn turn = model.TakeTurn();
  ids_.push_back(id);
  std::vector<float> own;
  std::vector<float>& all = logits != nullptr ? *logits : own;
  RETURN_IF_ERROR(reference_->Run({.ids = {&id, 1}}, &all));
  if (best_id != nullptr) {
    *best_id = static_cast<int32_t>(std::max_element(all.begin(), all.end()) - all.begin());
  }
  return absl::OkStatus();
}

absl::Status PromptContext::Forward(std::span<const int32_t> ids, const SharedModel& model,
                                    model::MemorySource* memory, std::vector<float>* logits,
                                    int32_t* best_id) {
  RETURN_IF_ERROR(model.Run(
      {.ids = ids, .context = &context_, .memory = memory, .logits = logits, .best_id = best_id}));
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

}  // namespace fovea::answer
