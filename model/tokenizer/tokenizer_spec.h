// What a tokenizer is made of, whichever file it came from: read by model/weights/, understood by
// model/tokenizer/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fovea::model {

enum class TokenType : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct TokenizerSpec {
  enum class Kind { kNone, kByteLevelBpe, kSentencePiece };
  Kind kind = Kind::kNone;
  // As stored: byte-level BPE tokens in GPT-2's printable alphabet ("Ġthe"), SentencePiece pieces
  // with U+2581 for spaces; control tokens as they are written ("<|im_start|>").
  std::vector<std::string> tokens;
  std::vector<float> scores;        // SentencePiece only
  std::vector<TokenType> types;     // as long as tokens
  std::vector<std::string> merges;  // byte-level BPE: "left right"
  // The split before BPE: "gpt2", "smollm", "llama3", "qwen2".
  std::string pre_tokenizer;
  // A serialised SentencePiece model (tokenizer.model), where there is one.
  std::string sentencepiece_model;
  bool ignore_merges = false;  // llama3: a whole word that is a token skips the merges
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  std::vector<int32_t> extra_end_ids;  // <|im_end|>, <|eot_id|>, …: they end an answer too
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;  // SentencePiece's dummy prefix
  std::string chat_template;     // Jinja source of the model's own template; may be empty
};

}  // namespace fovea::model
