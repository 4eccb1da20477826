// The model's local context together with the ids that are in it, so that prompts with a common
// beginning (the turns of a conversation) run only what is new.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "answer/shared_model.h"
#include "base/progress.h"
#include "base/status.h"
#include "model/memory_source.h"
#include "model/reference_session.h"
#include "model/transformer.h"

namespace fovea::answer {

// A memory that can forget what a prompt added to it.
class RewindableMemory : public model::GrowingMemory {
 public:
  // Forgets everything that was appended.
  virtual void Rewind() = 0;
};

// Not thread-safe. Clear it when the memory that its ids were run with has changed.
class PromptContext {
 public:
  void Clear();

  // From now on prompts run as LongLLaMA runs them (model/reference_session.h): in windows, and
  // with a local context that overflows into `memory`, which begins each prompt as it is then.
  // Null: not any more. `memory` outlives its use here.
  void UseReference(RewindableMemory* memory);

  // Makes `ids` the content and runs what was not there yet (at least the last one), in pieces
  // between which others have their turn and `progress` is asked. `logits` (may be null) =
  // [vocab_size] of the last id. After an error the context is shorter, and sound.
  absl::Status Run(std::span<const int32_t> ids, const SharedModel& model,
                   model::MemorySource* memory, std::vector<float>* logits,
                   const Progress& progress);

  // Appends one generated id. `logits` = [vocab_size] of it, or, where that is null, *best_id = the
  // id of the largest one (model/sequence.h).
  absl::Status Append(int32_t id, const SharedModel& model, model::MemorySource* memory,
                      std::vector<float>* logits, int32_t* best_id);

  int64_t n_tokens() const { return static_cast<int64_t>(ids_.size()); }

 private:
  absl::Status Forward(std::span<const int32_t> ids, const SharedModel& model,
                       model::MemorySource* memory, std::vector<float>* logits, int32_t* best_id);

  RewindableMemory* reference_memory_ = nullptr;
  std::unique_ptr<model::ReferenceSession> reference_;  // of the last Run
  model::LocalContext context_;
  std::vector<int32_t> ids_;  // [context_.n_tokens()]
};

}  // namespace fovea::answer
