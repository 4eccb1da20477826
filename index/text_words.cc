#include "index/text_words.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>

namespace fovea::index {
namespace {

struct Range {
  utf8proc_int32_t first;
  utf8proc_int32_t last;
};

// Scripts without spaces between words (and Hangul), by block, ascending.
constexpr Range kCutScripts[] = {
    {0x0e00, 0x0eff},    // Thai, Lao
    {0x1000, 0x109f},    // Myanmar
    {0x1780, 0x17ff},    // Khmer
    {0x1950, 0x19df},    // Tai Le, New Tai Lue
    {0x1a20, 0x1aaf},    // Tai Tham
    {0x1b00, 0x1b7f},    // Balinese
    {0x3005, 0x3007},    // iteration mark, zero of Han
    {0x3040, 0x312f},    // Hiragana, Katakana, Bopomofo
    {0x31a0, 0x31bf},    // more Bopomofo
    {0x31f0, 0x31ff},    // more Katakana
    {0x3400, 0x4dbf},    // Han
    {0x4e00, 0xa4cf},    // Han, Yi
    {0xa980, 0xa9ff},    // Javanese, more Myanmar
    {0xaa60, 0xaadf},    // more Myanmar, Tai Viet
    {0xac00, 0xd7a3},    // Hangul
    {0xf900, 0xfaff},    // more Han
    {0x1b000, 0x1b16f},  // more Kana
    {0x20000, 0x3ffff},  // more Han
};

// Vowel points of Hebrew and Arabic: most texts are written without them.
constexpr Range kPoints[] = {
    {0x0591, 0x05c7}, {0x0610, 0x061a}, {0x064b, 0x065f}, {0x0670, 0x0670}, {0x06d6, 0x06ed}};

template <size_t n>
bool IsIn(const Range (&ranges)[n], utf8proc_int32_t c) {
  const auto* after = std::upper_bound(
      std::begin(ranges), std::end(ranges), c,
      [](utf8proc_int32_t value, const Range& range) { return value < range.first; });
  return after != std::begin(ranges) && c <= std::prev(after)->last;
}

bool IsMark(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

// Of what words are made: FTS5's tokenizer is told the same categories (text_index.cc).
bool IsWordCategory(utf8proc_category_t category) {
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO) ||
         category == UTF8PROC_CATEGORY_CO;
}

bool IsLetter(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

// A code point from the front of *text; a space for a byte that is not UTF-8.
utf8proc_int32_t TakeCodePoint(std::string_view* text) {
  utf8proc_int32_t c = 0;
  const utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text->data()),
                       static_cast<utf8proc_ssize_t>(text->size()), &c);
  text->remove_prefix(length > 0 ? static_cast<size_t>(length) : 1);
  return length > 0 ? c : ' ';
}

// `text` as UTF-8: what is not, is replaced by spaces.
std::string ValidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const std::string_view before = text;
    const utf8proc_int32_t c = TakeCodePoint(&text);
    const size_t length = before.size() - text.size();
    if (c == ' ' || c == 0) {
      valid += ' ';
    } else {
      valid += before.substr(0, length);
    }
  }
  return valid;
}

std::string Fold(std::string_view text) {
  std::string valid = ValidUtf8(text);
  utf8proc_uint8_t* folded = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(valid.data()),
      static_cast<utf8proc_ssize_t>(valid.size()), &folded,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT |
                                     UTF8PROC_CASEFOLD | UTF8PROC_IGNORE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(folded, &std::free);
  // It fails without memory, or beyond 2 GiB; unfolded words are better than none.
  if (size < 0) return valid;
  return std::string(reinterpret_cast<const char*>(folded), static_cast<size_t>(size));
}

}  // namespace

void ForEachWord(std::string_view text, absl::FunctionRef<void(const TextWord&)> visit) {
  const std::string folded = Fold(text);
  std::string_view rest = folded;
  std::string word;
  bool is_character = false;
  bool follows = false;
  const auto end_word = [&] {
    if (!word.empty()) visit({word, is_character, follows});
    // The next one follows this one unless something stands between them.
    follows = !word.empty() && is_character;
    word.clear();
    is_character = false;
  };
  while (!rest.empty()) {
    const std::string_view before = rest;
    const utf8proc_int32_t c = TakeCodePoint(&rest);
    const std::string_view bytes = before.substr(0, before.size() - rest.size());
    const utf8proc_category_t category = utf8proc_category(c);
    if (IsMark(category)) {
      // A mark belongs to what it stands on; on nothing it says nothing.
      if (!word.empty() && !IsIn(kPoints, c)) word += bytes;
    } else if (!IsWordCategory(category)) {
      end_word();
      follows = false;
    } else if (IsLetter(category) && IsIn(kCutScripts, c)) {
      end_word();
      word = bytes;
      is_character = true;
    } else {
      if (is_character) end_word();
      if (word.empty()) follows = false;
      word += bytes;
    }
  }
  end_word();
}

std::string PassageWords(std::string_view text) {
  std::string words;
  words.reserve(text.size() + text.size() / 8);
  ForEachWord(text, [&](const TextWord& word) {
    if (!words.empty()) words += ' ';
    words += word.text;
  });
  return words;
}

}  // namespace fovea::index
