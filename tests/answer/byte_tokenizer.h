// A tokenizer with one token a byte and the markers of ChatML: prompts can be counted by hand.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::answer {

constexpr int32_t kEndOfText = 256;
constexpr int32_t kTurnBegin = 257;
constexpr int32_t kTurnEnd = 258;

inline model::TokenizerSpec ByteTokenizerSpec() {
  model::TokenizerSpec spec;
  spec.kind = model::TokenizerSpec::Kind::kByteLevelBpe;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    spec.tokens.push_back(model::ToByteAlphabet(std::string_view(&c, 1)));
    spec.types.push_back(model::TokenType::kNormal);
  }
  for (const char* marker : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    spec.tokens.emplace_back(marker);
    spec.types.push_back(model::TokenType::kControl);
  }
  spec.pre_tokenizer = "gpt2";
  spec.bos_id = kEndOfText;
  spec.eos_id = kEndOfText;
  spec.extra_end_ids = {kTurnEnd};
  return spec;
}

inline std::unique_ptr<model::Tokenizer> MakeByteTokenizer(const model::TokenizerSpec& spec) {
  auto tokenizer = model::Tokenizer::Create(spec);
  FOVEA_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

}  // namespace fovea::answer
