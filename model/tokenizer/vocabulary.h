// The tokens of a tokenizer: their ids, which of them are special, and which end an answer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "base/status.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace fovea::model {

// Immutable and thread-safe. Not copyable: the indexes point into the spec's strings.
class Vocabulary {
 public:
  // InvalidArgument: no tokens, lists of different lengths, ids outside the vocabulary.
  static absl::StatusOr<std::unique_ptr<Vocabulary>> Create(TokenizerSpec spec);

  const TokenizerSpec& spec() const { return spec_; }
  int64_t size() const { return static_cast<int64_t>(spec_.tokens.size()); }
  bool Contains(int32_t id) const { return id >= 0 && id < size(); }
  // −1 when absent; the first one where a token is stored twice.
  int32_t Find(std::string_view token) const;
  bool IsEnd(int32_t id) const;
  // Never the outcome of plain text: control and unknown tokens, the BOS and the end tokens (but
  // for a byte's own token: a model of lines may end its answers with a line's end), and
  // user-defined ones that are written like markers ("<|im_start|>"), which some files store as
  // user-defined though a conversation's structure hangs on them.
  bool IsSpecial(int32_t id) const { return special_[id]; }
  // Recognised in every text, before it is tokenized.
  bool IsUserDefined(int32_t id) const {
    return !special_[id] && spec_.types[id] == TokenType::kUserDefined;
  }
  int32_t unknown_id() const { return unknown_id_; }  // −1: none

 private:
  explicit Vocabulary(TokenizerSpec spec) : spec_(std::move(spec)) {}
  TokenizerSpec spec_;
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::vector<bool> special_;
  int32_t unknown_id_ = -1;
};

// Finds added tokens in a text. Immutable and thread-safe; the vocabulary must outlive it.
class AddedTokens {
 public:
  // The tokens that `is_added` is true for.
  AddedTokens(const Vocabulary& vocabulary, absl::FunctionRef<bool(int32_t id)> is_added);

  // Calls `piece` with consecutive pieces that cover `text`: an added token and its id, or what
  // stands between two of them and −1. The leftmost token wins, then the longest.
  void Split(std::string_view text,
             absl::FunctionRef<void(std::string_view piece, int32_t id)> piece) const;

 private:
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::vector<size_t> sizes_;  // of the tokens, descending
  bool first_byte_[256] = {};
};

}  // namespace fovea::model
