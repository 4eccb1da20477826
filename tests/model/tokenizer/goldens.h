// The data of data/make_tokenizer_goldens.py: strings, vocabularies, and what the reference
// libraries make of the strings.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

struct Golden {
  std::vector<std::vector<int32_t>> first_ids;  // of the first strings, plain text
  std::vector<uint32_t> hashes;                 // HashOfIds of every string
  uint32_t joined_hash = 0;                     // of all strings in one
};

// 10,000 of them.
const std::vector<std::string>& GoldenStrings();
Golden ReadGolden(std::string_view name);
// A byte-level vocabulary: "gpt2", "smollm", "llama3", "qwen2".
TokenizerSpec ReadVocabulary(std::string_view name);
// A file of data/, whole.
std::string ReadData(std::string_view file_name);

// FNV-1a over plain ids, −1, and ids with special tokens parsed.
uint32_t HashOfIds(std::span<const int32_t> plain, std::span<const int32_t> special);

// Random bytes: a mixture of anything, UTF-8 of all lengths, and words.
std::string RandomBytes(uint64_t seed);

// Expects that `ends` are ascending, end with the text, and lie between characters.
void ExpectEndsFit(std::string_view text, const Encoding& encoding);
// Expects that each end is where the bytes of the tokens up to there end, moved on to the
// character's end. For vocabularies with all bytes and no dummy prefix.
void ExpectEndsFollowBytes(const Tokenizer& tokenizer, std::string_view text,
                           const Encoding& encoding);

}  // namespace fovea::model
