#include "model/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "goldens.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Split(std::string_view name, std::string_view text) {
  absl::StatusOr<std::unique_ptr<PreTokenizer>> pre_tokenizer = PreTokenizer::Create(name);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  std::vector<std::string> words;
  (*pre_tokenizer)->Split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

TEST(PreTokenizerTest, Gpt2KeepsDigitsTogetherAndSpacesInFront) {
  EXPECT_THAT(Split("gpt2", "It's 1234  words\n\n x"),
              ElementsAre("It", "'s", " 1234", " ", " words", "\n\n", " x"));
}

TEST(PreTokenizerTest, SmollmSplitsDigitsOffBeforeAllElse) {
  EXPECT_THAT(Split("smollm", "a12  34 b"), ElementsAre("a", "1", "2", "  ", "3", "4", " b"));
  // Spaces before a digit are at the end of a text of their own; before a word the last goes along.
  EXPECT_THAT(Split("smollm", "   ٣  x"), ElementsAre("   ", "٣", " ", " x"));
}

TEST(PreTokenizerTest, Llama3TakesThreeDigitsAndIgnoresCase) {
  EXPECT_THAT(Split("llama3", "I'LL pay 12345!\r\n\r\n ok"),
              ElementsAre("I", "'LL", " pay", " ", "123", "45", "!\r\n\r\n", " ok"));
}

TEST(PreTokenizerTest, Qwen2TakesOneDigit) {
  EXPECT_THAT(Split("qwen2", "(x) 123"), ElementsAre("(x", ")", " ", "1", "2", "3"));
}

TEST(PreTokenizerTest, SpacesAreUnicodesWhiteSpace) {
  // NEL and the ideographic space are; U+180E and U+200B are not.
  EXPECT_THAT(Split("gpt2", "\u0085\u3000"), ElementsAre("\u0085\u3000"));
  EXPECT_THAT(Split("gpt2", "\u3000\u180e"), ElementsAre("\u3000", "\u180e"));
  EXPECT_THAT(Split("gpt2", " \u200b"), ElementsAre(" \u200b"));
}

TEST(PreTokenizerTest, InvalidBytesStandAlone) {
  EXPECT_THAT(Split("gpt2", "a\xFF\xFE b\xE2\x82"),
              ElementsAre("a", "\xFF", "\xFE", " b", "\xE2", "\x82"));
}

TEST(PreTokenizerTest, WordsCoverAnyBytes) {
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2"}) {
    absl::StatusOr<std::unique_ptr<PreTokenizer>> pre_tokenizer = PreTokenizer::Create(name);
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    for (uint64_t seed = 0; seed < 500; ++seed) {
      const std::string text = RandomBytes(seed);
      std::string covered;
      (*pre_tokenizer)->Split(text, [&](std::string_view word) {
        EXPECT_FALSE(word.empty());
        covered += word;
      });
      ASSERT_EQ(covered, text) << name << ", seed " << seed;
    }
  }
}

TEST(PreTokenizerTest, RunsOfMegabytesAreOneWord) {
  const size_t size = 4 << 20;
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2"}) {
    EXPECT_EQ(Split(name, std::string(size, 'a')).size(), 1u) << name;
    EXPECT_EQ(Split(name, std::string(size, '.')).size(), 1u) << name;
    EXPECT_EQ(Split(name, std::string(size, ' ')).size(), 1u) << name;
    EXPECT_EQ(Split(name, std::string(size, ' ') + "x").size(), 2u) << name;
    EXPECT_EQ(Split(name, std::string(size, '\n')).size(), 1u) << name;
  }
}

TEST(PreTokenizerTest, UnknownNameListsTheKnownOnes) {
  const absl::Status status = PreTokenizer::Create("deepseek").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.ToString(), HasSubstr("deepseek"));
  EXPECT_THAT(status.ToString(), HasSubstr("gpt2, smollm, llama3, qwen2"));
}

}  // namespace
}  // namespace fovea::model
