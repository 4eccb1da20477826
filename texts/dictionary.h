// Dictionary lookup, the Focused Transformer paper's synthetic task (Tworkowski et al. 2023, arXiv
// 2307.03170, section 5.2 and appendix E): definitions of keys of four symbols, and questions for
// some of them, as plain text.
//
//   Q7fa:x0Zs        a definition, a line of ten characters with its end
//   Q7fa?x0Zs        a question with its answer
//
// The alphabet is of 64 symbols (A-Z, a-z, 0-9, + and /), so that there are 64^4 keys and as many
// values; with the marks and the end of the line a model needs 67 tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "texts/random.h"

namespace fovea::texts {

inline constexpr std::string_view kDictionarySymbols =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
inline constexpr char kDefines = ':';
inline constexpr char kAsks = '?';
inline constexpr int64_t kWordSymbols = 4;  // of a key, and of a value
inline constexpr int64_t kRecordSymbols = 2 * (kWordSymbols + 1);
inline constexpr uint32_t kDictionaryWords = uint32_t{1} << 24;  // 64^4

// A word is a number below kDictionaryWords, its first symbol in front.
struct DictionaryRecord {
  uint32_t key = 0;
  uint32_t value = 0;
};

std::string WordText(uint32_t word);
// `mark`: kDefines or kAsks.
void AppendRecord(const DictionaryRecord& record, char mark, std::string* text);

// Another word that differs in the symbol at `place` (0: the first).
uint32_t WithOtherSymbol(uint32_t word, int64_t place, Random& random);

// Keys that are all different, in any order, at most kDictionaryWords. `look_alikes` 0: drawn at
// random. Else families of 1 + look_alikes keys (at most 64): the same but for the symbol at one
// place, which is the family's.
std::vector<uint32_t> DrawKeys(int64_t n, int64_t look_alikes, Random& random);

}  // namespace fovea::texts
