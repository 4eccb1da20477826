#include "model/tokenizer/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TokenizerSpec MakeSpec(std::vector<std::pair<std::string, TokenType>> tokens) {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  for (auto& [token, type] : tokens) {
    spec.tokens.push_back(std::move(token));
    spec.types.push_back(type);
  }
  return spec;
}

std::unique_ptr<Vocabulary> Make(TokenizerSpec spec) {
  auto vocabulary = Vocabulary::Create(std::move(spec));
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  return *std::move(vocabulary);
}

TEST(VocabularyTest, FindsTokensByTheirText) {
  const auto vocabulary = Make(MakeSpec({{"a", TokenType::kNormal}, {"b", TokenType::kNormal}}));
  EXPECT_EQ(vocabulary->Find("b"), 1);
  EXPECT_EQ(vocabulary->Find("c"), -1);
  EXPECT_EQ(vocabulary->Find(""), -1);
}

TEST(VocabularyTest, MissingTypesAreNormal) {
  TokenizerSpec spec = MakeSpec({{"a", TokenType::kControl}});
  spec.types.clear();
  EXPECT_FALSE(Make(spec)->IsSpecial(0));
}

TEST(VocabularyTest, MarkersAreSpecialHoweverTheyAreTyped) {
  TokenizerSpec spec = MakeSpec({{"<|im_start|>", TokenType::kUserDefined},
                                 {"[/INST]", TokenType::kUserDefined},
                                 {"<tool_call>", TokenType::kUserDefined},
                                 {"[x]", TokenType::kUserDefined},
                                 {"</s>", TokenType::kNormal},
                                 {"<|x|>", TokenType::kNormal}});
  spec.eos_id = 4;
  const auto vocabulary = Make(spec);
  EXPECT_TRUE(vocabulary->IsSpecial(0));
  EXPECT_TRUE(vocabulary->IsSpecial(1));
  EXPECT_FALSE(vocabulary->IsSpecial(2));
  EXPECT_FALSE(vocabulary->IsSpecial(3));
  EXPECT_TRUE(vocabulary->IsSpecial(4));
  EXPECT_FALSE(vocabulary->IsSpecial(5));
  EXPECT_FALSE(vocabulary->IsUserDefined(0));
  EXPECT_TRUE(vocabulary->IsUserDefined(2));
}

TEST(VocabularyTest, EndsAreTheEosAndTheExtraOnes) {
  TokenizerSpec spec = MakeSpec({{"a", TokenType::kNormal},
                                 {"b", TokenType::kControl},
                                 {"c", TokenType::kControl},
                                 {"d", TokenType::kControl}});
  spec.eos_id = 1;
  spec.extra_end_ids = {3};
  const auto vocabulary = Make(spec);
  EXPECT_FALSE(vocabulary->IsEnd(0));
  EXPECT_TRUE(vocabulary->IsEnd(1));
  EXPECT_FALSE(vocabulary->IsEnd(2));
  EXPECT_TRUE(vocabulary->IsEnd(3));
  EXPECT_FALSE(vocabulary->IsEnd(-1));
}

TEST(VocabularyTest, ContradictionsAreRefused) {
  EXPECT_EQ(Vocabulary::Create(TokenizerSpec()).status().code(),
            absl::StatusCode::kInvalidArgument);
  TokenizerSpec spec = MakeSpec({{"a", TokenType::kNormal}, {"b", TokenType::kNormal}});
  spec.types.pop_back();
  EXPECT_THAT(Vocabulary::Create(spec).status().ToString(), HasSubstr("1 token types, want 2"));
  spec = MakeSpec({{"a", TokenType::kNormal}});
  spec.bos_id = 1;
  EXPECT_THAT(Vocabulary::Create(spec).status().ToString(), HasSubstr("bos_id is 1"));
  spec.bos_id = -1;
  spec.eos_id = 5;
  EXPECT_THAT(Vocabulary::Create(spec).status().ToString(), HasSubstr("eos_id is 5"));
  spec.eos_id = 0;
  spec.extra_end_ids = {9};
  EXPECT_THAT(Vocabulary::Create(spec).status().ToString(), HasSubstr("end id is 9"));
}

std::vector<std::pair<std::string, int32_t>> Split(const AddedTokens& added,
                                                   std::string_view text) {
  std::vector<std::pair<std::string, int32_t>> pieces;
  added.Split(text, [&](std::string_view piece, int32_t id) { pieces.emplace_back(piece, id); });
  return pieces;
}

TEST(AddedTokensTest, LeftmostThenLongestWins) {
  const auto vocabulary = Make(MakeSpec({{"<a", TokenType::kUserDefined},
                                         {"<a>b", TokenType::kUserDefined},
                                         {"a>bc", TokenType::kUserDefined},
                                         {"x", TokenType::kNormal}}));
  const AddedTokens added(*vocabulary, [](int32_t id) { return id < 3; });
  EXPECT_THAT(
      Split(added, "x<a>bcx<ax<"),
      ElementsAre(Pair("x", -1), Pair("<a>b", 1), Pair("cx", -1), Pair("<a", 0), Pair("x<", -1)));
  EXPECT_THAT(Split(added, "<a<a"), ElementsAre(Pair("<a", 0), Pair("<a", 0)));
  EXPECT_THAT(Split(added, ""), ElementsAre());
}

TEST(AddedTokensTest, NoTokensLeaveTheTextWhole) {
  const auto vocabulary = Make(MakeSpec({{"a", TokenType::kNormal}}));
  const AddedTokens added(*vocabulary, [](int32_t) { return false; });
  EXPECT_THAT(Split(added, "banana"), ElementsAre(Pair("banana", -1)));
}

}  // namespace
}  // namespace fovea::model
