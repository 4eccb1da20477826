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
  // size. A token begins where the one before it ends. An end is never within a UTF-8 character:
  // tokens that share one all end where it ends. So a text may be cut after token i unless the
  // next one has the same end.
  std::vector<uint32_t> ends;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // FailedPrecondition for Kind::kNone; Unimplemented names an unknown pre-tokenizer;
  // InvalidArgument for a specification that contradicts itself or a damaged SentencePiece model.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const TokenizerSpec& spec);
  virtual ~Tokenizer() = default;

  // Plain text: special tokens written in it are encoded as the characters they are written with,
  // unless `parse_special`. User-defined tokens are always recognised, but for those that are
  // written like markers of a conversation ("<|…|>", "[INST]"). Adds no BOS or EOS. Any bytes are
  // accepted, up to 4 GiB; invalid UTF-8 is encoded byte by byte where the vocabulary can, else as
  // the unknown token, or left out where there is none.
  // The text is taken as it is. Qwen2's own tokenizer normalizes to NFC first: its ids are others
  // for text that is not in NFC, but here they have to lead back to the document's bytes.
  // SentencePiece puts its dummy prefix before the text, and after each special token in it.
  virtual Encoding Encode(std::string_view text, bool parse_special = false) const = 0;
  // The bytes that `ids` stand for. Special tokens are written out only with `show_special`.
  // Ids outside the vocabulary are left out. A SentencePiece sequence loses its dummy prefix.
  virtual std::string Decode(std::span<const int32_t> ids, bool show_special = false) const = 0;
  // Bytes that one token adds in the middle of a text (SentencePiece: with its space). Empty for
  // special tokens and ids outside the vocabulary.
  virtual std::string TokenBytes(int32_t id) const = 0;

  virtual int64_t vocab_size() const = 0;
  // Of a token as the spec writes it ("Ġthe", "▁the", "<|im_end|>"). −1 when there is none.
  virtual int32_t TokenId(std::string_view token) const = 0;
  virtual bool IsEnd(int32_t id) const = 0;  // ends an answer
  // What the tokenizer was made of; for a serialised SentencePiece model the tokens, scores and
  // types that were read from it stand here instead of its bytes.
  virtual const TokenizerSpec& spec() const = 0;
};

// Turns a stream of ids into text that never ends within a UTF-8 character, and is valid UTF-8:
// bytes that can never become a character turn into U+FFFD. Not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The text that became complete with `id`; may be empty.
  std::string Push(int32_t id);
  // What is left; an incomplete character becomes U+FFFD. The decoder is then as new.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool first_ = true;
};

}  // namespace fovea::model
