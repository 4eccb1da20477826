// Byte-pair merges by rank: which tokens a word becomes. It knows ids and bytes only; the split
// into words and special tokens are for others.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "model/tokenizer/vocabulary.h"

namespace fovea::model {

// Immutable and thread-safe.
class BpeMerges {
 public:
  struct Symbol {
    int32_t id = 0;
    uint32_t end = 0;  // where its bytes end in the word
  };

  // From the vocabulary's merges. A merge into a special token is left out: plain text must not
  // become one. InvalidArgument names a merge that is not two tokens, or whose result is none.
  static absl::StatusOr<std::unique_ptr<BpeMerges>> Create(const Vocabulary& vocabulary);

  // Appends the symbols of `word`: its bytes, merged until no pair has a rank left, the lowest rank
  // first and the leftmost among equals. A byte that the vocabulary lacks becomes the unknown
  // token; without one it is left out, as in the Hugging Face tokenizers.
  // O(size · log size), for words of megabytes too.
  void Apply(std::string_view word, std::vector<Symbol>* symbols) const;

 private:
  struct Merge {
    uint32_t rank = 0;
    int32_t id = 0;
  };
  BpeMerges() = default;
  const Merge* Find(int32_t left, int32_t right) const;
  void ApplyShort(std::vector<Symbol>* symbols, size_t first) const;
  void ApplyLong(std::vector<Symbol>* symbols, size_t first) const;

  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left << 32 | right
  int32_t byte_ids_[256] = {};                   // −1: not in the vocabulary
};

}  // namespace fovea::model
