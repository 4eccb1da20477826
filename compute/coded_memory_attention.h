// Approximate attention to the best keys of a memory that lies on the device: what MemoryAttention
// computes (memory_attention.h), from codes of 2, 4 or 8 bits a dimension (code_scan.h) in the
// place of the keys. The codes are read in full; the keys whose estimated scores are best are
// scored again as they are stored, and the top k of these are attended to. Where an index was
// searched for a part, the keys that it found are scored in the place of those.
#pragma once

#include <cstdint>
#include <span>

#include "base/float16.h"
#include "compute/code_scan.h"
#include "compute/device.h"
#include "compute/memory_attention.h"
#include "compute/view.h"

namespace fovea::compute {

// Codes of a part's keys, of each KV head's one after another, in the device's memory (EncodeKeys).
struct KeyCodes {
  int bits = 0;                       // 2, 4 or 8; 0: none, the keys themselves are scanned
  const std::byte* codes = nullptr;   // [n_kv_heads, n_blocks, n_lines, 64]
  const BFloat16* factors = nullptr;  // [n_kv_heads, n_blocks · 16]
  const float* mean = nullptr;        // [n_kv_heads, head_dim]: what was taken off the keys
  const float* rotation = nullptr;    // KeyCoder::rotation()
};

// What an index of a part's keys found, in the device's memory. An index counts the keys that it
// was made of, which need not be the part's tokens: some may have been deleted since.
struct FoundKeys {
  const int64_t* keys = nullptr;    // [n_kv_heads, n_queries, group, n_found]; −1: none
  int n_found = 0;                  // 0: no index was searched. Each key once for a query head
  const int32_t* tokens = nullptr;  // [n_keys]: the token that a key is, −1: none. Null: its number
};

struct CodedMemoryPart {
  MemoryPart entries;
  KeyCodes codes;
  FoundKeys found = {};  // codes and keys of such a part are not scanned
};
inline constexpr int kMaxCandidates = 1024;
inline constexpr int kMaxFound = 2048;  // that an index found for a query head in a part

struct CodedMemoryAttentionArgs {
  ConstView queries;                       // as MemoryAttentionArgs has it, and what follows, too
  std::span<const CodedMemoryPart> parts;  // up to kMaxMemoryParts
  int n_candidates = 128;                  // that are scored again at least; 1 … kMaxCandidates
  int top_k = 16;                          // 1 … kMaxMemoryTopK
  float scale = 1.0f;
  View output;  // none: as MemoryAttentionArgs has it
  View lse;
  int64_t* positions = nullptr;
  float* scores = nullptr;
};
// Every key whose estimate is one of the n_candidates best of its query head is scored again, and
// no more than a few times as many are. Scores, positions and their order, and what query heads get
// that kept nothing, are MemoryAttention's. InvalidArgument for views of other types, shapes or
// layouts, or more than 2³¹ tokens.
absl::Status CodedMemoryAttention(Device& device, const CodedMemoryAttentionArgs& args);

struct EncodeKeysArgs {
  const KeyCoder* coder = nullptr;
  const float* rotation = nullptr;  // coder->rotation(), in the device's memory
  // [n_kv_heads, n_keys, head_dim], float32 or bfloat16; tokens beside one another, heads any
  // stride apart. In the device's memory, or pinned.
  ConstView keys;
  // = as KeyCodes has them: n_kv_heads · coder->code_bytes(n_keys) bytes, n_kv_heads ·
  // coder->n_factors(n_keys), n_kv_heads · head_dim. Device memory.
  std::byte* codes = nullptr;
  BFloat16* factors = nullptr;
  float* mean = nullptr;
};
// The mean is that of up to 65,536 of a head's keys, evenly spread; any vector would do. A key with
// a number that is not finite gets a factor of 0. On a GPU sums are made in another order than
// KeyCoder's: where two grids suit a key equally well, the other one may be taken.
absl::Status EncodeKeys(Device& device, const EncodeKeysArgs& args);

}  // namespace fovea::compute
