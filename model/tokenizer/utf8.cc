#include "model/tokenizer/utf8.h"

#include <cstdint>
#include <cstring>

namespace fovea::model {

Utf8Step NextUtf8(std::string_view text) {
  if (text.empty()) return {Utf8Status::kIncomplete, 0};
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8Status::kValid, 1};

  // The second byte's range depends on the first (Unicode, table 3-7); later ones are 80 … BF.
  size_t size = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    if (lead == 0xE0) low = 0xA0;   // overlong
    if (lead == 0xED) high = 0x9F;  // surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    if (lead == 0xF0) low = 0x90;   // overlong
    if (lead == 0xF4) high = 0x8F;  // beyond U+10FFFF
  } else {
    return {Utf8Status::kInvalid, 1};
  }
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {Utf8Status::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Status::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Status::kValid, size};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    // Most text is ASCII: eight bytes at once.
    while (pos + 8 <= text.size()) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + pos, sizeof(word));
      if ((word & 0x8080808080808080u) != 0) break;
      pos += 8;
    }
    const Utf8Step step = NextUtf8(text.substr(pos));
    if (step.status != Utf8Status::kValid) break;
    pos += step.size_bytes;
  }
  return pos;
}

}  // namespace fovea::model
