#include "model/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "model/tokenizer/byte_alphabet.h"

namespace fovea::model {
namespace {

TEST(Utf8Test, CharactersOfAllLengthsAreValid) {
  for (const std::string_view character : {"a", "é", "€", "😀", "\x7F", "\xF4\x8F\xBF\xBF"}) {
    const Utf8Step step = NextUtf8(std::string(character) + "x");
    EXPECT_EQ(step.status, Utf8Status::kValid) << character;
    EXPECT_EQ(step.size_bytes, character.size());
  }
}

TEST(Utf8Test, CutCharactersAreIncomplete) {
  for (const std::string_view character : {"é", "€", "😀"}) {
    for (size_t size = 1; size < character.size(); ++size) {
      const Utf8Step step = NextUtf8(character.substr(0, size));
      EXPECT_EQ(step.status, Utf8Status::kIncomplete);
      EXPECT_EQ(step.size_bytes, size);
    }
  }
  EXPECT_EQ(NextUtf8("").status, Utf8Status::kIncomplete);
  EXPECT_EQ(NextUtf8("").size_bytes, 0u);
}

TEST(Utf8Test, ForbiddenBytesAreInvalid) {
  const struct {
    std::string_view bytes;
    size_t size_bytes;
  } kCases[] = {
      {"\x80", 1},
      {"\xC0\x80", 1},
      {"\xC1\xBF", 1},
      {"\xE0\x80\x80", 1},  // overlong
      {"\xED\xA0\x80", 1},  // a surrogate
      {"\xF0\x80\x80", 1},  // overlong
      {"\xF4\x90\x80", 1},  // beyond U+10FFFF
      {"\xF5\x80", 1},
      {"\xFF", 1},
      {"\xE2\x82x", 2},
      {"\xF0\x9F\x98x", 3},
      {"\xF0\x9F\xF0\x9F", 2},
  };
  for (const auto& c : kCases) {
    const Utf8Step step = NextUtf8(c.bytes);
    EXPECT_EQ(step.status, Utf8Status::kInvalid) << testing::PrintToString(c.bytes);
    EXPECT_EQ(step.size_bytes, c.size_bytes) << testing::PrintToString(c.bytes);
  }
}

TEST(Utf8Test, ValidPrefixEndsAtTheFirstInvalidByte) {
  EXPECT_EQ(ValidUtf8Prefix(""), 0u);
  EXPECT_EQ(ValidUtf8Prefix("plain text of more than eight bytes"), 35u);
  const std::string text = "0123456789é€";
  for (size_t position = 0; position <= 10; ++position) {
    std::string broken = text;
    broken.insert(position, "\xFF");
    EXPECT_EQ(ValidUtf8Prefix(broken), position);
  }
  EXPECT_EQ(ValidUtf8Prefix(text), text.size());
  EXPECT_EQ(ValidUtf8Prefix(std::string_view(text).substr(0, text.size() - 1)), text.size() - 3);
}

TEST(ByteAlphabetTest, EveryByteComesBack) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    const std::string token = ToByteAlphabet(bytes);
    EXPECT_EQ(ValidUtf8Prefix(token), token.size());
    EXPECT_EQ(FromByteAlphabet(token), bytes);
  }
}

TEST(ByteAlphabetTest, WritesWhatVocabulariesHave) {
  EXPECT_EQ(ToByteAlphabet(" the\n"), "ĠtheĊ");
  EXPECT_EQ(ToByteAlphabet("é"), "Ã©");
  EXPECT_EQ(ToByteAlphabet(std::string_view("\0", 1)), "Ā");
  EXPECT_EQ(ToByteAlphabet("\xAD"), "Ń");
}

TEST(ByteAlphabetTest, RefusesOtherCharacters) {
  for (const std::string_view token : {" ", "a b", "中", "😀", "\n", "ń\xC4", "\xC4", "\xFF", "š"}) {
    EXPECT_EQ(FromByteAlphabet(token), std::nullopt) << token;
  }
}

}  // namespace
}  // namespace fovea::model
