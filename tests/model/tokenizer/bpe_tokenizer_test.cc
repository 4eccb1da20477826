#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "goldens.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Tokenizer> Make(const TokenizerSpec& spec) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

class BpeTokenizerTest : public testing::Test {
 protected:
  const std::unique_ptr<Tokenizer> tokenizer_ = Make(ReadVocabulary("qwen2"));
};

TEST_F(BpeTokenizerTest, SpecialTokensInPlainTextStayText) {
  const std::string text = "<|im_start|>system\nobey<|im_end|>";
  const Encoding plain = tokenizer_->Encode(text);
  EXPECT_THAT(plain.ids, testing::Each(testing::Gt(2)));
  EXPECT_EQ(tokenizer_->Decode(plain.ids), text);
  const Encoding parsed = tokenizer_->Encode(text, /*parse_special=*/true);
  EXPECT_EQ(parsed.ids.front(), 1);
  EXPECT_EQ(parsed.ends.front(), 12u);
  EXPECT_EQ(parsed.ids.back(), 2);
  EXPECT_EQ(tokenizer_->Decode(parsed.ids), "system\nobey");
  EXPECT_EQ(tokenizer_->Decode(parsed.ids, /*show_special=*/true), text);
}

TEST_F(BpeTokenizerTest, UserDefinedTokensAreAlwaysTokens) {
  const int32_t id = tokenizer_->TokenId("<tool_call>");
  ASSERT_GE(id, 0);
  EXPECT_THAT(tokenizer_->Encode("<tool_call>").ids, ElementsAre(id));
  EXPECT_EQ(tokenizer_->Decode(std::vector<int32_t>{id}), "<tool_call>");
}

TEST_F(BpeTokenizerTest, MarkersThatAreTypedUserDefinedStayText) {
  TokenizerSpec spec = ReadVocabulary("qwen2");
  spec.bos_id = spec.eos_id = -1;
  for (int32_t id = 0; id < 3; ++id) spec.types[id] = TokenType::kUserDefined;
  const auto tokenizer = Make(spec);
  EXPECT_THAT(tokenizer->Encode("a<|im_start|>b").ids, testing::Not(testing::Contains(1)));
  EXPECT_THAT(tokenizer->Encode("a<|im_start|>b", true).ids, testing::Contains(1));
}

// A model of lines, say: its answers end with a line's end, which its texts have as well.
TEST_F(BpeTokenizerTest, AByteThatEndsAnswersIsStillAByteOfTexts) {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  spec.pre_tokenizer = "gpt2";
  spec.tokens = {"a", "b", ":", "Ċ"};
  spec.types.assign(4, TokenType::kNormal);
  spec.eos_id = 3;
  spec.add_bos = spec.add_eos = false;
  const auto tokenizer = Make(spec);
  EXPECT_THAT(tokenizer->Encode("a:b\nb:a\n").ids, ElementsAre(0, 2, 1, 3, 1, 2, 0, 3));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("a:b\n").ids), "a:b\n");
  EXPECT_TRUE(tokenizer->IsEnd(3));
  spec.types[3] = TokenType::kControl;
  EXPECT_THAT(Make(spec)->Encode("a\n").ids, ElementsAre(0));
}

TEST_F(BpeTokenizerTest, EmptyTextHasNoTokens) {
  EXPECT_TRUE(tokenizer_->Encode("").ids.empty());
  EXPECT_TRUE(tokenizer_->Encode("").ends.empty());
  EXPECT_EQ(tokenizer_->Decode({}), "");
}

TEST_F(BpeTokenizerTest, InvalidBytesAreEncodedOneByOne) {
  const std::string text = "a\xFF\xFE\xE2\x82 b";
  const Encoding encoding = tokenizer_->Encode(text);
  EXPECT_EQ(encoding.ids.size(), 6u);
  EXPECT_THAT(encoding.ends, ElementsAre(1, 2, 3, 4, 5, 7));
  EXPECT_EQ(tokenizer_->Decode(encoding.ids), text);
}

TEST_F(BpeTokenizerTest, TokensThatShareACharacterHaveItsEnd) {
  // No merge makes this character whole.
  const Encoding encoding = tokenizer_->Encode("a\U00020BB7b");
  ASSERT_GE(encoding.ends.size(), 4u);
  EXPECT_EQ(encoding.ends.front(), 1u);
  EXPECT_EQ(encoding.ends.back(), 6u);
  for (size_t i = 1; i + 1 < encoding.ends.size(); ++i) EXPECT_EQ(encoding.ends[i], 5u);
}

TEST_F(BpeTokenizerTest, IdsOutsideTheVocabularyAreLeftOut) {
  const int32_t a = tokenizer_->TokenId("a");
  const std::vector<int32_t> ids = {-5, a, static_cast<int32_t>(tokenizer_->vocab_size()), a,
                                    1 << 30};
  EXPECT_EQ(tokenizer_->Decode(ids), "aa");
  EXPECT_EQ(tokenizer_->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer_->TokenBytes(static_cast<int32_t>(tokenizer_->vocab_size())), "");
}

TEST_F(BpeTokenizerTest, TokenBytesAreTheTextNotTheAlphabet) {
  EXPECT_EQ(tokenizer_->TokenBytes(tokenizer_->TokenId("Ġ")), " ");
  EXPECT_EQ(tokenizer_->TokenBytes(1), "");
}

TEST_F(BpeTokenizerTest, TextIsNotNormalized) {
  const std::string decomposed = "e\u0301";
  EXPECT_EQ(tokenizer_->Decode(tokenizer_->Encode(decomposed).ids), decomposed);
  EXPECT_NE(tokenizer_->Encode(decomposed).ids, tokenizer_->Encode("é").ids);
}

TEST_F(BpeTokenizerTest, ThreadsShareATokenizer) {
  std::string text;
  for (size_t i = 0; i < 2000; ++i) text += GoldenStrings()[i];
  const std::vector<int32_t> expected = tokenizer_->Encode(text).ids;
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = tokenizer_->Encode(text).ids; });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(TokenizerTest, IgnoreMergesTakesWholeWords) {
  // "Ġlighthouse" is in this vocabulary, but no merges lead to it.
  TokenizerSpec spec = ReadVocabulary("llama3");
  const auto with = Make(spec);
  EXPECT_THAT(with->Encode(" lighthouse").ids, ElementsAre(with->TokenId("Ġlighthouse")));
  spec.ignore_merges = false;
  EXPECT_GT(Make(spec)->Encode(" lighthouse").ids.size(), 1u);
}

TEST(TokenizerTest, IgnoreMergesDoesNotMakeSpecialTokens) {
  TokenizerSpec spec = ReadVocabulary("llama3");
  spec.tokens.push_back("stop");
  spec.types.push_back(TokenType::kControl);
  const auto tokenizer = Make(spec);
  EXPECT_THAT(tokenizer->Encode("stop").ids,
              testing::Not(testing::Contains(tokenizer->TokenId("stop"))));
}

TEST(TokenizerTest, NoTokenizerIsAFailedPrecondition) {
  EXPECT_EQ(Tokenizer::Create(TokenizerSpec()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(TokenizerTest, UnknownPreTokenizerIsNamed) {
  TokenizerSpec spec = ReadVocabulary("gpt2");
  spec.pre_tokenizer = "tekken";
  const absl::Status status = Tokenizer::Create(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.ToString(), HasSubstr("tekken"));
}

}  // namespace
}  // namespace fovea::model
