#include "documents/graphemes.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

std::vector<std::string> Graphemes(std::string_view text, size_t max_characters = 100) {
  std::vector<std::string> graphemes;
  while (!text.empty()) {
    graphemes.emplace_back(FirstGrapheme(text, max_characters));
    text.remove_prefix(graphemes.back().size());
  }
  return graphemes;
}

TEST(GraphemesTest, AreWhatPeopleSeeAsCharacters) {
  const std::vector<std::string> of_several[] = {
      {"a", "b", " ", "c"},
      {"e\u0301", "o\u0308\u0304", "x"},                          // accents
      {"👨\u200D👩\u200D👧\u200D👦", "👍\U0001F3FD", "❤\uFE0F", "😀"},  // joined, skin, variation
      {"🇩🇰", "🇧🇪", "🇩"},                                          // pairs, and one alone
      {"\u1112\u1161\u11AB", "한", "글"},                         // Jamo
      {"नि", "กำ", "\u0E01"},                                     // vowel signs
      {"\r\n", "\n", "\r"},
  };
  for (const std::vector<std::string>& want : of_several) {
    std::string text;
    for (const std::string& grapheme : want) text += grapheme;
    EXPECT_EQ(Graphemes(text), want);
  }
  EXPECT_EQ(FirstGrapheme("", 4), "");
}

TEST(GraphemesTest, AreNoLongerThanAsked) {
  std::string text = "a";
  for (int i = 0; i < 1000; ++i) text += "\u0301";
  EXPECT_EQ(FirstGrapheme(text, 2000), text);
  EXPECT_EQ(FirstGrapheme(text, 3), "a\u0301\u0301");
  EXPECT_EQ(FirstGrapheme(text, 1), "a");
}

TEST(GraphemesTest, BytesThatAreNoTextAreEachOne) {
  EXPECT_EQ(Graphemes("e\xFF\u0301\xC3"),
            (std::vector<std::string>{"e", "\xFF", "\u0301", "\xC3"}));
}

}  // namespace
}  // namespace fovea::documents
