// LongLLaMA's inference, step by step as its public PyTorch code does it: how a prompt is split
// into windows, what goes to the memory and when, and how the local context overflows into it
// (the method: Focused Transformer, arXiv 2307.03170, section 3.1; the code has the last word).
//
// State: a local context and, per memory layer, a memory. A call with n tokens becomes segments: a
// head of n − last_context_length tokens in windows of max_position_embeddings, then one tail.
//   - Without a local context, a head window attends to the memory so far and to itself, and goes
//     to the memory. The tail becomes the local context; or, without cache, it goes to the memory.
//   - With a local context, every segment goes to the local context.
//   - Where the local context and a segment are together longer than max_position_embeddings, the
//     whole local context goes to the memory first, and the segment is the new local context.
// Positions are indexes in the local context; memory keys are not rotated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/dense_memory.h"
#include "model/transformer.h"

namespace fovea::model {

// Not thread-safe.
class ReferenceSession {
 public:
  // Both outlive the session. The memory may hold entries already.
  ReferenceSession(Transformer* model, GrowingMemory* memory);

  struct Call {
    std::span<const int32_t> ids = {};  // at least one
    int64_t n_padding = 0;              // of them, at the beginning, that are masked (left padding)
    bool use_cache = true;              // false: everything goes to the memory
    int64_t last_context_length = 0;    // 0: the model's
  };
  // One forward pass of the reference, with the state before it (and before an overflow).
  struct Segment {
    int64_t n_tokens = 0;
    int64_t local_before = 0;
    int64_t memory_before = 0;
    bool operator==(const Segment&) const = default;
  };
  // `logits` (may be null) = [vocab_size] of the last id, or [ids.size(), vocab_size] with
  // all_logits, where rows of padding are 0. `segments` (may be null) is appended to.
  // FailedPrecondition: no cache where there is a local context; padding after tokens. After an
  // error the session is not to be used any more.
  absl::Status Run(const Call& call, std::vector<float>* logits, bool all_logits = false,
                   std::vector<Segment>* segments = nullptr);

  // Padding counts, as it does for the windows.
  int64_t local_length() const { return context_.n_padding() + context_.n_tokens(); }
  int64_t memory_length() const { return memory_->n_tokens() + memory_padding_; }

 private:
  absl::Status RunSegment(std::span<const int32_t> ids, int64_t n_padding, bool to_memory,
                          std::vector<float>* logits, bool all_logits,
                          std::vector<Segment>* segments);
  absl::Status MoveToMemory(LocalContext* context);

  Transformer* model_;
  GrowingMemory* memory_;
  LocalContext context_ = LocalContext::ForReference();
  int64_t memory_padding_ = 0;  // padding that went to the memory: counted, not stored
};

}  // namespace fovea::model
