// What a run of a model works on: sequences of tokens, and the memory that it works in.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compute/device.h"
#include "model/local_context.h"
#include "model/memory_source.h"

namespace fovea::model {

class DecodeStep;

// Tokens that go on with a local context. The sequences of a run go through the matrix products
// together; each attends to its own context and memory.
struct Sequence {
  std::span<const int32_t> ids = {};  // at least one
  LocalContext* context = nullptr;    // another one for each sequence
  MemorySource* memory = nullptr;     // may be null
  // May be null; else = [vocab_size] of the last token, or [ids.size(), vocab_size] with
  // all_logits.
  std::vector<float>* logits = nullptr;
  bool all_logits = false;
  // May be null; else = the id of the last token's largest logit, the smallest of equal ones: what
  // greedy decoding goes on with, without a copy of the logits.
  int32_t* best_id = nullptr;
};

// Activations of a run, kept from one to the next. In memory of one device; used by one thread at a
// time, as it is. Empty until the first run.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

 private:
  friend class ForwardPass;
  friend class DecodeStep;
  friend class WindowEncoder;
  // [n_rows, …], rows of all sequences one after another.
  compute::Buffer x, normed, q, k, v, attention, gate, up, lse, memory_output, memory_lse;
  compute::Buffer places;   // [n_sequences]: compute::TokenPlace of the first new token
  compute::Buffer rotated;  // [n_heads, head_dim]
  compute::Buffer rounded;  // [n_rows, …], bfloat16: what products take
  compute::Buffer logits;   // of some rows
  std::vector<std::vector<float>> host_logits;  // of sequences that want a best id alone
  std::unique_ptr<DecodeStep> step;             // of the last context that took steps of one token
  // Host memory, for memories that take queries there: queries, local_lse, output, lse.
  compute::Buffer host_queries, host_local_lse, host_output, host_lse;
  compute::Buffer host_entries;  // of the windows that were encoded
};

}  // namespace fovea::model
