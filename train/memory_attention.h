// Attention of a batch's sequences over what they see of contexts and their own tokens, under one
// softmax (section 3.1 of the Focused Transformer paper, arXiv 2307.03170).
#pragma once

#include <cstdint>

#include "train/crossbatch.h"
#include "train/torch.h"

namespace fovea::train {

struct MemoryAttentionArgs {
  torch::Tensor queries;               // [n, n_heads, n_tokens, head_dim]
  torch::Tensor keys, values;          // [n, n_kv_heads, n_tokens, head_dim]: causal
  torch::Tensor context_keys = {};     // [n_contexts, n_kv_heads, n_context_tokens, head_dim]
  torch::Tensor context_values = {};   // the same
  const SeenContexts* seen = nullptr;  // null: no memory, and the contexts may be undefined
};

// [n, n_heads, n_tokens, head_dim]; scores are divided by √head_dim. On a GPU in bfloat16 by flash
// attention (Dao 2023), elsewhere with whole matrices of scores. Where the entries see a ring of
// contexts, as in the paper's form, contexts are read where they lie: nothing of them is copied for
// each entry.
torch::Tensor AttendWithMemory(const MemoryAttentionArgs& args);

}  // namespace fovea::train
