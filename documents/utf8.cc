#include "documents/utf8.h"

#include <cstdint>
#include <cstring>

namespace fovea::documents {
namespace {

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

bool IsAsciiSpace(unsigned char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

}  // namespace

Utf8Scan ScanUtf8(std::string_view bytes) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  const size_t size = bytes.size();
  size_t at = 0;
  while (at < size) {
    // Most text is ASCII: eight bytes at once, none of them NUL (the borrow of a zero byte) or
    // with its high bit set. A borrow may blame a byte above a NUL, never miss the NUL itself.
    while (at + 8 <= size) {
      uint64_t word;
      std::memcpy(&word, data + at, 8);
      constexpr uint64_t kHigh = 0x8080808080808080u;
      constexpr uint64_t kOnes = 0x0101010101010101u;
      if (((word | (word - kOnes)) & kHigh) != 0) break;
      at += 8;
    }
    if (at == size) break;
    const unsigned char lead = data[at];
    if (lead == 0) return {at, false};
    if (lead < 0x80) {
      ++at;
      continue;
    }
    // The second byte's range rules out overlong forms, surrogates and what is above U+10FFFF.
    size_t length = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
      length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      length = 3;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return {at, false};
    }
    if (at + 1 == size) return {at, true};
    if (data[at + 1] < low || data[at + 1] > high) return {at, false};
    for (size_t i = 2; i < length; ++i) {
      if (at + i == size) return {at, true};
      if (!IsContinuation(data[at + i])) return {at, false};
    }
    at += length;
  }
  return {at, false};
}

std::string_view Utf8Prefix(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && IsContinuation(static_cast<unsigned char>(text[end]))) --end;
  return text.substr(0, end);
}

std::string OneLine(std::string_view text, size_t max_bytes) {
  std::string line;
  bool space = false;
  while (!text.empty() && line.size() < max_bytes) {
    const auto byte = static_cast<unsigned char>(text.front());
    if (byte <= ' ' || byte == 0x7F) {
      space = !line.empty();
      text.remove_prefix(1);
      continue;
    }
    if (space) line.push_back(' ');
    space = false;
    if (byte < 0x80) {
      line.push_back(text.front());
      text.remove_prefix(1);
      continue;
    }
    size_t length = 1;
    while (length < 4 && length < text.size() &&
           IsContinuation(static_cast<unsigned char>(text[length]))) {
      ++length;
    }
    if (ScanUtf8(text.substr(0, length)).valid_bytes == length) {
      line += text.substr(0, length);
    } else {
      length = 1;
      line += "\xEF\xBF\xBD";
    }
    text.remove_prefix(length);
  }
  return std::string(Utf8Prefix(line, max_bytes));
}

bool IsBlank(std::string_view text) {
  constexpr std::string_view kNoBreakSpace = "\xC2\xA0";
  while (!text.empty()) {
    if (IsAsciiSpace(static_cast<unsigned char>(text.front()))) {
      text.remove_prefix(1);
    } else if (text.starts_with(kNoBreakSpace)) {
      text.remove_prefix(kNoBreakSpace.size());
    } else if (text.starts_with(kByteOrderMark)) {
      text.remove_prefix(kByteOrderMark.size());
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace fovea::documents
