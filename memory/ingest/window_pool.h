// Windows of earlier versions of a document by content: what need not be encoded again.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/hash.h"
#include "storage/records.h"

namespace fovea::memory {

struct HashOfHash128 {
  size_t operator()(const Hash128& hash) const { return static_cast<size_t>(hash.low); }
};

struct StoredRange {
  storage::Slot slot_begin;
  uint32_t n_tokens;
  std::optional<storage::DocumentNumber> owner;
};
// A text that repeats itself has several windows with the same content, each with slots of its own.
using WindowPool = absl::flat_hash_map<Hash128, std::vector<StoredRange>, HashOfHash128>;

// Of the window's tokens and of those before it.
Hash128 WindowHash(const storage::WindowRecord& window);

}  // namespace fovea::memory
