// Where a long text can be cut so that its parts, tokenized one by one, give what the whole would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/container/flat_hash_set.h"

namespace fovea::model {

// A merge across a cut would make a piece in which the two characters around it are neighbours. So
// between two characters that are neighbours in no piece, a cut changes nothing. Immutable and
// thread-safe.
class SafeCuts {
 public:
  // All pieces that a text can become are to be added.
  void AddPiece(std::string_view piece);

  // The first safe cut at or after `position`, or the text's size. `text` is valid UTF-8, a space
  // in it is the pieces' U+2581.
  size_t Next(std::string_view text, size_t position) const;

 private:
  absl::flat_hash_set<uint64_t> neighbours_;  // two characters, four bytes each
};

}  // namespace fovea::model
