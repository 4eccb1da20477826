// The default model's own vocabulary, read from its GGUF file, against the reference library.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "goldens.h"
#include "model/tokenizer/chat_template.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {
namespace {

// Empty when the model is not installed.
std::filesystem::path DefaultModelPath() {
  std::filesystem::path home;
  if (const char* fovea_home = std::getenv("FOVEA_HOME")) {
    home = fovea_home;
  } else if (const char* user_home = std::getenv("HOME")) {
    home = std::filesystem::path(user_home) / ".local/share/fovea";
  }
  const std::filesystem::path path = home / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

class DefaultModelTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path path = DefaultModelPath();
    if (path.empty()) {
      GTEST_SKIP() << "SmolLM2-135M-Instruct.Q4_1.gguf is not in $FOVEA_HOME/models";
    }
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::Create((*checkpoint)->tokenizer_spec());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(DefaultModelTokenizerTest, AllStringsHaveTheReferencesIds) {
  const Golden golden = ReadGolden("smollm2_135m_instruct");
  ASSERT_EQ(golden.hashes.size(), GoldenStrings().size());
  for (size_t i = 0; i < golden.first_ids.size(); ++i) {
    EXPECT_EQ(tokenizer_->Encode(GoldenStrings()[i]).ids, golden.first_ids[i])
        << "string " << i << ": " << GoldenStrings()[i];
  }
  size_t n_different = 0;
  for (size_t i = 0; i < GoldenStrings().size(); ++i) {
    const std::string& text = GoldenStrings()[i];
    const uint32_t hash =
        HashOfIds(tokenizer_->Encode(text).ids, tokenizer_->Encode(text, true).ids);
    if (hash != golden.hashes[i]) ++n_different;
  }
  EXPECT_EQ(n_different, 0u);
}

TEST_F(DefaultModelTokenizerTest, EndsFitTheText) {
  for (const std::string& text : GoldenStrings()) {
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, tokenizer_->Encode(text)));
  }
}

TEST_F(DefaultModelTokenizerTest, QuestionBecomesTheAdaptersPrompt) {
  // default_adapter.json of tests/model/data: what the default adapter was trained with.
  const ChatFormat format = RecognizeChatFormat(tokenizer_->spec().chat_template);
  EXPECT_EQ(format, ChatFormat::kChatMl);
  const struct {
    const char* question;
    std::vector<int32_t> ids;
  } kPrompts[] = {
      {"What is the special magic number for silver harbor?",
       {1, 4093, 198, 1780, 314, 260, 1767, 9019, 1230, 327, 8499, 19890, 47, 2, 198, 1, 520, 9531,
        198}},
      {"Where did Clara Mercer leave the compass?",
       {1, 4093, 198, 9576, 1250, 28433, 24271, 259, 3934, 260, 23006, 47, 2, 198, 1, 520, 9531,
        198}},
      {"What is the pass key of Hugo Lawson?",
       {1, 4093, 198, 1780, 314, 260, 1301, 1646, 282, 39499, 4375, 2034, 47, 2, 198, 1, 520, 9531,
        198}},
      {"What is the secret word of the bitter falcon?",
       {1, 4093, 198, 1780, 314, 260, 4911, 2229, 282, 260, 14568, 39967, 47, 2, 198, 1, 520, 9531,
        198}},
  };
  for (const auto& prompt : kPrompts) {
    const ChatMessage message{ChatMessage::Role::kUser, prompt.question};
    const absl::StatusOr<std::vector<int32_t>> ids = RenderChat(*tokenizer_, format, {&message, 1});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, prompt.ids) << prompt.question;
  }
}

TEST_F(DefaultModelTokenizerTest, AnswersEndAtTheEndOfATurn) {
  EXPECT_TRUE(tokenizer_->IsEnd(2));
  const std::vector<int32_t> ends = ChatEndIds(*tokenizer_, ChatFormat::kChatMl);
  for (const int32_t id : ends) EXPECT_FALSE(tokenizer_->IsEnd(id));
  EXPECT_EQ(ClosingId(*tokenizer_, ChatFormat::kChatMl), tokenizer_->TokenId("<|im_end|>"));
}

TEST_F(DefaultModelTokenizerTest, BytesThatTheVocabularyLacksAreLeftOut) {
  // SmolLM2 has no token for U+0004, nor for the lead bytes F1 and F2.
  EXPECT_TRUE(tokenizer_->Encode("\x04").ids.empty());
  const Encoding encoding = tokenizer_->Encode("a\x04 b\x04");
  EXPECT_EQ(tokenizer_->Decode(encoding.ids), "a b");
  EXPECT_EQ(encoding.ends.back(), 5u);
}

}  // namespace
}  // namespace fovea::model
