#include "index/text_words.h"

#include <gtest/gtest.h>

#include <string>

namespace fovea::index {
namespace {

TEST(PassageWordsTest, CutsScriptsWithoutSpacesAndLeavesTheRest) {
  EXPECT_EQ(PassageWords("naïve 北京x, well-known"), "naïve 北 京 x well known");
  EXPECT_EQ(PassageWords("人々 แมว ໂຕ ខ្មែរ မြန်"), "人 々 แ ม ว ໂ ຕ ខ្ មែ រ မြ န်");
  EXPECT_EQ(PassageWords("๑๒๓ หน้า ۴۲"), "๑๒๓ ห น้ า ۴۲");  // digits stay numbers
}

TEST(PassageWordsTest, FoldsUnicodeForms) {
  EXPECT_EQ(PassageWords("\u1102\u1161\u1107\u1175"), "나 비");  // NFD Hangul
  EXPECT_EQ(PassageWords("Mu\u031bo\u031b\u0301p"), "mướp");     // NFD Vietnamese
  EXPECT_EQ(PassageWords("o\ufb03ce \ufb01fty \ufb02orins"), "office fifty florins");
  EXPECT_EQ(PassageWords("in\u00adsur\u00adance a\u200bb"), "insurance ab");
  EXPECT_EQ(PassageWords("ＡＢＣ１２３ ｶﾞﾗｽ"), "abc123 ガ ラ ス");
  EXPECT_EQ(PassageWords("Straße STRASSE"), "strasse strasse");
  EXPECT_EQ(PassageWords("مُحَمَّد"), "محمد");
}

TEST(PassageWordsTest, KeepsVowelSignsInWords) {
  EXPECT_EQ(PassageWords("हिन्दी भाषा"), "हिन्दी भाषा");
}

TEST(PassageWordsTest, TakesBytesThatAreNotUtf8ForSpaces) {
  EXPECT_EQ(PassageWords(std::string_view("a\0b\xff\xfe"
                                          "c\xe4\xb8",
                                          9)),
            "a b c");
  EXPECT_EQ(PassageWords(""), "");
  EXPECT_EQ(PassageWords("\u0301 \u0e31"), "");  // marks on nothing
}

TEST(ForEachWordTest, SaysWhichCharactersFollowEachOther) {
  std::string seen;
  ForEachWord("東京、猫 cat猫犬", [&](const TextWord& word) {
    seen += word.is_character ? (word.follows ? "+" : "|") : "/";
    seen += word.text;
  });
  EXPECT_EQ(seen, "|東+京|猫/cat|猫+犬");
}

}  // namespace
}  // namespace fovea::index
