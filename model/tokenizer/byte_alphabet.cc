#include "model/tokenizer/byte_alphabet.h"

#include <array>

namespace fovea::model {
namespace {

// Bytes that print as themselves in Latin-1 keep their code point; the others take 256, 257, … in
// ascending order. So all code points are below 0x144: one or two bytes of UTF-8.
constexpr int kCodePoints = 0x144;

constexpr bool PrintsAsItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<uint16_t, 256> code_point{};
  std::array<int16_t, kCodePoints> byte{};  // −1: not in the alphabet
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const uint16_t code_point = PrintsAsItself(byte) ? static_cast<uint16_t>(byte) : next++;
    alphabet.code_point[byte] = code_point;
    alphabet.byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.code_point[' '] == 0x120);

}  // namespace

std::string ToByteAlphabet(std::string_view bytes) {
  std::string token;
  token.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const uint16_t code_point = kAlphabet.code_point[static_cast<unsigned char>(c)];
    if (code_point < 0x80) {
      token.push_back(static_cast<char>(code_point));
    } else {
      token.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
      token.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return token;
}

std::optional<std::string> FromByteAlphabet(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    int code_point = static_cast<unsigned char>(token[i]);
    if (code_point >= 0x80) {
      if (code_point < 0xC2 || code_point > 0xDF || i + 1 == token.size()) return std::nullopt;
      const int continuation = static_cast<unsigned char>(token[++i]);
      if ((continuation & 0xC0) != 0x80) return std::nullopt;
      code_point = ((code_point & 0x1F) << 6) | (continuation & 0x3F);
    }
    if (code_point >= kCodePoints || kAlphabet.byte[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[code_point]));
  }
  return bytes;
}

}  // namespace fovea::model
