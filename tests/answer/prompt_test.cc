#include "answer/prompt.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/answer/byte_tokenizer.h"

namespace fovea::answer {
namespace {

using model::ChatFormat;
using model::ChatMessage;
using ::testing::HasSubstr;

class PromptTest : public ::testing::Test {
 protected:
  std::string Text(std::span<const int32_t> ids) const {
    return tokenizer_->Decode(ids, /*show_special=*/true);
  }
  Prompt Fit(const PromptRequest& request, int64_t max_prompt_tokens) const {
    auto prompt = FitPrompt(*tokenizer_, style_, request, max_prompt_tokens);
    EXPECT_TRUE(prompt.ok()) << prompt.status();
    return prompt.ok() ? *std::move(prompt) : Prompt();
  }

  std::unique_ptr<model::Tokenizer> tokenizer_ = MakeByteTokenizer(ByteTokenizerSpec());
  PromptStyle style_{.format = ChatFormat::kChatMl, .system_prompt = ""};
};

TEST_F(PromptTest, PutsPassagesBeforeTheQuestionInOneUserTurn) {
  const std::vector<std::string> passages = {"First.", "Second."};
  const auto ids =
      RenderPrompt(*tokenizer_, style_, {.history = {}, .question = "Q?", .passages = passages});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(Text(*ids),
            "<|im_start|>user\nFirst.\n\nSecond.\n\nQ?<|im_end|>\n<|im_start|>assistant\n");
}

TEST(UserMessageTest, LeavesWhiteSpaceAroundPassagesOut) {
  const std::vector<std::string> passages = {"\n First.\n\n", " \n", "Sec ond.\r\n"};
  EXPECT_EQ(UserMessage(passages, "Q?"), "First.\n\nSec ond.\n\nQ?");
}

TEST_F(PromptTest, PutsTheSystemPromptAndEarlierTurnsFirst) {
  style_.system_prompt = "Be brief.";
  const std::vector<ChatMessage> history = {{ChatMessage::Role::kUser, "Hi"},
                                            {ChatMessage::Role::kAssistant, "Hello"}};
  const auto ids =
      RenderPrompt(*tokenizer_, style_, {.history = history, .question = "Q?", .passages = {}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(Text(*ids),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST_F(PromptTest, AModelThatMayThinkIsAskedNotTo) {
  model::TokenizerSpec spec;
  spec.chat_template =
      "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}"
      "{% if enable_thinking is false %}<think></think>{% endif %}";
  const auto style = ChoosePromptStyle(model::MemoryConfig(), spec);
  ASSERT_TRUE(style.ok()) << style.status();
  const auto ids =
      RenderPrompt(*tokenizer_, *style, {.history = {}, .question = "Q?", .passages = {}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(Text(*ids),
            "<|im_start|>user\nQ?<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n");
}

TEST_F(PromptTest, WhatUsersWriteNeverBecomesAMarker) {
  const auto ids =
      RenderPrompt(*tokenizer_, style_, {.history = {}, .question = "<|im_end|>", .passages = {}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::count(ids->begin(), ids->end(), kTurnEnd), 1);
}

TEST_F(PromptTest, RawTextIsContinuedAsItIs) {
  const auto ids =
      RenderPrompt(*tokenizer_, style_,
                   {.history = {}, .question = "Once <|im_end|>", .passages = {}, .raw = true});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->size(), std::string("Once <|im_end|>").size());
  EXPECT_EQ(Text(*ids), "Once <|im_end|>");
}

TEST_F(PromptTest, RawTextBeginsWithBosOnlyWhereTheTokenizerAddsOne) {
  model::TokenizerSpec spec = ByteTokenizerSpec();
  spec.add_bos = true;
  const auto tokenizer = MakeByteTokenizer(spec);
  const auto ids = RenderPrompt(*tokenizer, style_,
                                {.history = {}, .question = "a", .passages = {}, .raw = true});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ::testing::ElementsAre(kEndOfText, 'a'));
}

TEST_F(PromptTest, KeepsEveryPassageThatFits) {
  const std::vector<std::string> passages = {"aaaa", "bbbb"};
  const PromptRequest request{.history = {}, .question = "Q?", .passages = passages};
  const auto whole = RenderPrompt(*tokenizer_, style_, request);
  ASSERT_TRUE(whole.ok());
  const Prompt prompt = Fit(request, static_cast<int64_t>(whole->size()));
  EXPECT_EQ(prompt.ids, *whole);
  EXPECT_EQ(prompt.n_passages, 2);
  EXPECT_FALSE(prompt.truncated);
}

TEST_F(PromptTest, DropsPassagesFromTheEndAndCutsTheLastThatIsLeft) {
  const std::vector<std::string> passages = {"aaaa", "bbbb", "cccc"};
  const PromptRequest request{.history = {}, .question = "Q?", .passages = passages};
  const auto whole = RenderPrompt(*tokenizer_, style_, request);
  ASSERT_TRUE(whole.ok());
  // Without "cccc\n\n" and two letters of "bbbb".
  const Prompt prompt = Fit(request, static_cast<int64_t>(whole->size()) - 6 - 2);
  EXPECT_EQ(prompt.n_passages, 2);
  EXPECT_TRUE(prompt.truncated);
  EXPECT_THAT(Text(prompt.ids), HasSubstr("user\naaaa\n\nbb\n\nQ?"));
  EXPECT_EQ(prompt.ids.size(), whole->size() - 8);
}

TEST_F(PromptTest, NeverCutsWithinACharacter) {
  const std::vector<std::string> passages = {"\xC3\xA4\xC3\xB6\xC3\xBC"};  // two bytes each
  const PromptRequest request{.history = {}, .question = "Q?", .passages = passages};
  const auto whole = RenderPrompt(*tokenizer_, style_, request);
  ASSERT_TRUE(whole.ok());
  const Prompt prompt = Fit(request, static_cast<int64_t>(whole->size()) - 1);
  EXPECT_THAT(Text(prompt.ids), HasSubstr("user\n\xC3\xA4\xC3\xB6\n\nQ?"));
}

TEST_F(PromptTest, DropsThePassageWhenNoTokenOfItFits) {
  const std::vector<std::string> passages = {"aaaa"};
  PromptRequest request{.history = {}, .question = "Q?", .passages = {}};
  const auto bare = RenderPrompt(*tokenizer_, style_, request);
  ASSERT_TRUE(bare.ok());
  request.passages = passages;
  for (int64_t room = 0; room <= 2; ++room) {  // less than a letter and an empty line
    const Prompt prompt = Fit(request, static_cast<int64_t>(bare->size()) + room);
    EXPECT_EQ(prompt.ids, *bare);
    EXPECT_EQ(prompt.n_passages, 0);
  }
}

TEST_F(PromptTest, RefusesAQuestionThatIsTooLong) {
  const PromptRequest request{.history = {}, .question = std::string(100, 'q'), .passages = {}};
  const auto prompt = FitPrompt(*tokenizer_, style_, request, 50);
  EXPECT_EQ(prompt.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(prompt.status().message()), HasSubstr("at most 50"));
}

TEST(PromptStyleTest, TheAdapterDecides) {
  model::TokenizerSpec spec;
  spec.chat_template = "{{ '[INST]' }}";
  model::MemoryConfig config;
  config.chat_template = "chatml";
  config.has_system_prompt = true;
  config.system_prompt = "S";
  const auto style = ChoosePromptStyle(config, spec);
  ASSERT_TRUE(style.ok()) << style.status();
  EXPECT_EQ(style->format, ChatFormat::kChatMl);
  EXPECT_EQ(style->system_prompt, "S");
}

TEST(PromptStyleTest, ElseTheModelsOwnTemplate) {
  model::TokenizerSpec spec;
  spec.chat_template = "<|im_start|>{{ role }}<|im_end|>";
  const auto style = ChoosePromptStyle(model::MemoryConfig(), spec);
  ASSERT_TRUE(style.ok()) << style.status();
  EXPECT_EQ(style->format, ChatFormat::kChatMl);
  EXPECT_EQ(style->system_prompt, "");
}

TEST(PromptStyleTest, AnUnknownFormatIsAnError) {
  model::MemoryConfig config;
  config.chat_template = "klingon";
  const auto style = ChoosePromptStyle(config, model::TokenizerSpec());
  EXPECT_EQ(style.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(style.status().message()), HasSubstr("fot_config.json"));
}

}  // namespace
}  // namespace fovea::answer
