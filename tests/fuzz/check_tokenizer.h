// What every tokenizer that can be made has to keep, whatever its file said.
#pragma once

#include <string_view>

#include "fuzz_input.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::fuzz {

inline void CheckTokenizer(const model::TokenizerSpec& spec) {
  const auto tokenizer = model::Tokenizer::Create(spec);
  CheckMessage(tokenizer.status());
  if (!tokenizer.ok()) return;
  for (const std::string_view text :
       {std::string_view("Hello, world  2026\n"), std::string_view("na\xC3\xAFve \xF0\x9F\x98\x80"),
        std::string_view("a\0b\xFF\xC3<|im_end|>", 15), std::string_view()}) {
    for (const bool parse_special : {false, true}) {
      const model::Encoding encoding = (*tokenizer)->Encode(text, parse_special);
      Require(encoding.ids.size() == encoding.ends.size(), "an end for each id");
      uint32_t last = 0;
      for (size_t i = 0; i < encoding.ids.size(); ++i) {
        Require(encoding.ids[i] >= 0 && encoding.ids[i] < (*tokenizer)->vocab_size(),
                "ids of the vocabulary");
        Require(encoding.ends[i] >= last && encoding.ends[i] <= text.size(), "ascending ends");
        last = encoding.ends[i];
      }
      Require(encoding.ids.empty() || last == text.size(), "the last end is the text's");
      (*tokenizer)->Decode(encoding.ids, /*show_special=*/true);
    }
  }
  for (const int32_t id : {-1, 0, 1, 1 << 30}) (*tokenizer)->TokenBytes(id);
}

}  // namespace fovea::fuzz
