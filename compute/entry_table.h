// Keys or values of one memory layer, in many blocks on the device, and places in them.
#pragma once

#include <cstdint>
#include <span>

#include "base/entries.h"

namespace fovea::compute {

struct EntryBlock {
  EntryPointer data;  // [n_kv_heads, n_tokens, head_dim]; null: not there, and not to be asked for
  int64_t n_tokens = 0;
};

struct EntryPlace {
  uint32_t block = 0;
  uint32_t token = 0;  // of the block
};

struct EntryTable {
  std::span<const EntryBlock> blocks;  // all of one type

  EntryPointer At(EntryPlace place, int64_t kv_head, int64_t head_dim) const {
    const EntryBlock& block = blocks[place.block];
    return block.data + (kv_head * block.n_tokens + place.token) * head_dim;
  }
};

}  // namespace fovea::compute
