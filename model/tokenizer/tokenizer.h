// Text ↔ token ids. Byte-level BPE (gpt2, smollm, llama3, qwen2) and SentencePiece.
//
//   ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Create(checkpoint->tokenizer_spec()));
//   auto encoding = tokenizer->Encode("Hello");
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace fovea::model {

struct Encoding {
  std::vector<int32_t> ids;
  // Where each token's text ends in the input, in bytes; ascending, the last one is the input's
  // size. A token begins where the one before it ends (a character that took several tokens may
  // give them the same end).
  std::vector<uint32_t> ends;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const TokenizerSpec& spec);
  virtual ~Tokenizer() = default;

  // Plain text: special tokens written in it are encoded as the characters they are written with,
  // unless `parse_special`. Adds no BOS or EOS. Any bytes are accepted; invalid UTF-8 is encoded
  // byte by byte where the vocabulary can, else as the unknown token.
  virtual Encoding Encode(std::string_view text, bool parse_special = false) const = 0;
  // The bytes that `ids` stand for. Control tokens are written out only with `show_special`.
  // Ids outside the vocabulary are left out. A SentencePiece sequence loses its dummy prefix.
  virtual std::string Decode(std::span<const int32_t> ids, bool show_special = false) const = 0;
  // Bytes that one token adds in the middle of a text (SentencePiece: with its space).
  virtual std::string TokenBytes(int32_t id) const = 0;

  virtual int64_t vocab_size() const = 0;
  // −1 when the token does not exist.
  virtual int32_t TokenId(std::string_view token) const = 0;
  virtual bool IsEnd(int32_t id) const = 0;  // ends an answer
  virtual const TokenizerSpec& spec() const = 0;
};

// Turns a stream of ids into text that never ends within a UTF-8 character. Not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The text that became complete with `id`; may be empty.
  std::string Push(int32_t id);
  // What is left; an incomplete character becomes U+FFFD.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool first_ = true;
};

}  // namespace fovea::model
