// A SentencePiece model as data: read from its serialised form (a protocol buffer), or made from
// the pieces that a GGUF file lists, and written for the library to load. It tokenizes nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace fovea::model {

struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0.0f;
    TokenType type = TokenType::kNormal;
  };
  std::vector<Piece> pieces;  // by id

  // Of the normalizer.
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_character_map = false;  // it rewrites characters (NFKC, …)
  // Of the trainer.
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string unknown_surface = " \xE2\x81\x87 ";  // what an unknown token is written as: " ⁇ "

  // All else, as it was serialised; the fields above are written over it.
  std::string other_fields;

  // InvalidArgument for bytes that are no SentencePiece model.
  static absl::StatusOr<SentencePieceModel> Parse(std::string_view serialized);
  // LLaMA's conventions: BPE by score, no normalization, byte fallback where all bytes are there.
  // InvalidArgument when scores or types are not as long as the tokens.
  static absl::StatusOr<SentencePieceModel> FromSpec(const TokenizerSpec& spec);

  // For SentencePieceProcessor::LoadFromSerializedProto. Pieces that the library would refuse the
  // model for (empty ones, ones that are there twice, a second unknown, byte pieces without byte
  // fallback) are written under names that no text has; where no piece is the unknown one, another
  // is added after the last.
  std::string Serialize() const;
};

}  // namespace fovea::model
