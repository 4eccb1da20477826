#include <gtest/gtest.h>

#include <string>

#include "goldens.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace fovea::model {
namespace {

std::unique_ptr<Tokenizer> MakeByteLevel() {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(ReadVocabulary("gpt2"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> MakeSentencePiece() {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kSentencePiece;
  spec.sentencepiece_model = ReadData("sentencepiece_llama.model");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

class StreamDecoderTest : public testing::TestWithParam<std::unique_ptr<Tokenizer> (*)()> {
 protected:
  const std::unique_ptr<Tokenizer> tokenizer_ = GetParam()();
};

TEST_P(StreamDecoderTest, EveryStepIsWholeCharacters) {
  for (size_t i = 0; i < 3000; ++i) {
    const std::string& text = GoldenStrings()[i];
    StreamDecoder decoder(*tokenizer_);
    std::string streamed;
    for (const int32_t id : tokenizer_->Encode(text).ids) {
      const std::string step = decoder.Push(id);
      ASSERT_EQ(ValidUtf8Prefix(step), step.size()) << text;
      streamed += step;
    }
    ASSERT_EQ(decoder.Finish(), "") << text;
    ASSERT_EQ(streamed, text);
  }
}

TEST_P(StreamDecoderTest, InvalidBytesBecomeReplacementCharacters) {
  StreamDecoder decoder(*tokenizer_);
  std::string streamed;
  for (const int32_t id : tokenizer_
                              ->Encode("a\xFF"
                                       "b\xE2\x82"
                                       "c")
                              .ids) {
    streamed += decoder.Push(id);
  }
  EXPECT_EQ(streamed + decoder.Finish(), "a\uFFFDb\uFFFDc");
}

TEST_P(StreamDecoderTest, StreamThatEndsWithinACharacterEndsWithAReplacement) {
  StreamDecoder decoder(*tokenizer_);
  std::string streamed;
  for (const int32_t id : tokenizer_->Encode("a\xF0\x9F\x98").ids) streamed += decoder.Push(id);
  EXPECT_EQ(streamed, "a");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST_P(StreamDecoderTest, RandomBytesAlwaysGiveValidText) {
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    StreamDecoder decoder(*tokenizer_);
    for (const int32_t id : tokenizer_->Encode(RandomBytes(seed)).ids) {
      const std::string step = decoder.Push(id);
      ASSERT_EQ(ValidUtf8Prefix(step), step.size()) << "seed " << seed;
    }
  }
}

TEST_P(StreamDecoderTest, SpecialAndForeignIdsAddNothing) {
  StreamDecoder decoder(*tokenizer_);
  EXPECT_EQ(decoder.Push(1), "");
  EXPECT_EQ(decoder.Push(-1), "");
  EXPECT_EQ(decoder.Push(1 << 30), "");
  EXPECT_EQ(decoder.Finish(), "");
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, StreamDecoderTest,
                         testing::Values(&MakeByteLevel, &MakeSentencePiece), [](const auto& info) {
                           return info.index == 0 ? "ByteLevel" : "SentencePiece";
                         });

TEST(StreamDecoderDummyPrefixTest, OnlyTheFirstSpaceIsDropped) {
  const auto tokenizer = MakeSentencePiece();
  const int32_t id = tokenizer->TokenId("\u2581the");
  ASSERT_GE(id, 0);
  StreamDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.Push(1), "");  // a control token is no beginning
  EXPECT_EQ(decoder.Push(id), "the");
  EXPECT_EQ(decoder.Push(id), " the");
}

}  // namespace
}  // namespace fovea::model
