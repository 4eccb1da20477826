#include "index/text_query.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace fovea::index {
namespace {

TEST(MakeMatchExpressionTest, JoinsWordsByOrAndDropsStopWords) {
  EXPECT_EQ(MakeMatchExpression("Who is the captain of the Pequod?"), "\"captain\" OR \"pequod\"");
}

TEST(MakeMatchExpressionTest, KeepsStopWordsWhenThereIsNothingElse) {
  EXPECT_EQ(MakeMatchExpression("Who are you?"), "\"who\" OR \"are\" OR \"you\"");
}

TEST(MakeMatchExpressionTest, CountsARepeatedWordOnce) {
  EXPECT_EQ(MakeMatchExpression("whale Whale WHALE"), "\"whale\"");
}

TEST(MakeMatchExpressionTest, QuotesWhatLooksLikeOperators) {
  EXPECT_EQ(MakeMatchExpression("sea NEAR(whale) -\"white\"* ^x : {y} OR ;"),
            "\"sea\" OR \"near\" OR \"whale\" OR \"white\" OR \"x\" OR \"y\"");
}

TEST(MakeMatchExpressionTest, IsEmptyWithoutWords) {
  EXPECT_EQ(MakeMatchExpression(""), "");
  EXPECT_EQ(MakeMatchExpression(" ?!\"'()*…—「」 \n\t"), "");
  EXPECT_EQ(MakeMatchExpression("😀🎉"), "");
}

TEST(MakeMatchExpressionTest, PairsCjkCharacters) {
  EXPECT_EQ(MakeMatchExpression("北京大学"), "\"北 京\" OR \"京 大\" OR \"大 学\"");
  EXPECT_EQ(MakeMatchExpression("猫"), "\"猫\"");
  EXPECT_EQ(MakeMatchExpression("東京、猫 cat猫"), "\"東 京\" OR \"猫\" OR \"cat\"");
}

TEST(MakeMatchExpressionTest, PairsThaiCharactersWithTheirMarks) {
  EXPECT_EQ(MakeMatchExpression("แมวชื่อ"), "\"แ ม\" OR \"ม ว\" OR \"ว ชื่\" OR \"ชื่ อ\"");
  EXPECT_EQ(MakeMatchExpression("ดำ 42"), "\"ดํ า\" OR \"42\"");  // SARA AM, decomposed
}

TEST(MakeMatchExpressionTest, SkipsInvalidBytesAndNul) {
  EXPECT_EQ(MakeMatchExpression(std::string("a\0whale\xff\xc3harpoon\xe4\xb8", 18)),
            "\"whale\" OR \"harpoon\"");
  // An overlong form of the quote, and a lone surrogate.
  EXPECT_EQ(MakeMatchExpression("ab\xc0\xa2 cd\xed\xa0\x80 ef"), "\"ab\" OR \"cd\" OR \"ef\"");
}

TEST(MakeMatchExpressionTest, TakesAtMostSoManyTerms) {
  std::string question;
  for (int i = 0; i < 10'000; ++i) question += "w" + std::to_string(i) + " ";
  const std::string expression = MakeMatchExpression(question);
  EXPECT_EQ(std::count(expression.begin(), expression.end(), '"'), 2 * kMaxTerms);
}

}  // namespace
}  // namespace fovea::index
