#include "answer/conversation.h"

#include "answer/answerer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

using ::testing::SizeIs;

class ConversationTest : public TinyMemoryTest {
 protected:
  std::unique_ptr<Answerer> MakeAnswerer() {
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    return answerer.ok() ? *std::move(answerer) : nullptr;
  }
  static int64_t SessionTokens(const Conversation& conversation) {
    int64_t n_tokens = 0;
    for (const auto& window : conversation.session_windows()) n_tokens += window.n_tokens;
    return n_tokens;
  }

  PromptStyle style_;  // no chat format: messages joined by empty lines
};

TEST_F(ConversationTest, TheOldestTurnLeavesFirst) {
  LoadModel();
  Conversation conversation;
  conversation.AddTurn("one", "1");
  conversation.AddTurn("two", "2");
  ASSERT_TRUE(conversation.RetireOldestTurn(style_, model_.get()).ok());
  ASSERT_THAT(conversation.messages(), SizeIs(2));
  EXPECT_EQ(conversation.messages()[0].content, "two");
  EXPECT_EQ(conversation.messages()[1].content, "2");
}

TEST_F(ConversationTest, ATurnThatLeavesIsEncodedWhole) {
  LoadModel();
  Conversation conversation;
  conversation.AddTurn("one", "1");
  ASSERT_TRUE(conversation.RetireOldestTurn(style_, model_.get()).ok());
  // "one\n\n1\n\n" or without what separates it from the next one: the tokenizer has a token a
  // byte.
  EXPECT_GE(SessionTokens(conversation), 6);
  EXPECT_LE(SessionTokens(conversation), 8);
  EXPECT_TRUE(conversation.empty());
  const model::EncodedWindow& window = conversation.session_windows().front();
  ASSERT_THAT(window.keys, SizeIs(2));
  EXPECT_THAT(window.keys[0], SizeIs(static_cast<size_t>(window.n_tokens * memory::kTinyKvHeads *
                                                         memory::kTinyHeadDim)));
}

TEST_F(ConversationTest, ALongTurnTakesSeveralWindows) {
  LoadModel();
  const auto window_tokens = static_cast<size_t>(model_->memory_config().window);
  Conversation conversation;
  conversation.AddTurn(std::string(window_tokens, 'x'), std::string(window_tokens / 2, 'y'));
  const absl::Status status = conversation.RetireOldestTurn(style_, model_.get());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(conversation.session_windows(), SizeIs(2));
  EXPECT_GE(SessionTokens(conversation), static_cast<int64_t>(window_tokens * 3 / 2));
}

TEST_F(ConversationTest, AModelWithoutMemoryLayersForgetsTheTurn) {
  LoadModel(/*with_memory_layers=*/false);
  Conversation conversation;
  conversation.AddTurn("one", "1");
  ASSERT_TRUE(conversation.RetireOldestTurn(style_, model_.get()).ok());
  EXPECT_TRUE(conversation.empty());
  EXPECT_TRUE(conversation.session_windows().empty());
}

TEST_F(ConversationTest, ClearForgetsEverything) {
  LoadModel();
  Conversation conversation;
  conversation.AddTurn("one", "1");
  conversation.AddTurn("two", "2");
  ASSERT_TRUE(conversation.RetireOldestTurn(style_, model_.get()).ok());
  conversation.Clear();
  EXPECT_TRUE(conversation.empty());
  EXPECT_TRUE(conversation.session_windows().empty());
}

TEST_F(ConversationTest, AChatGoesOnPastTheWindow) {
  LoadModel();
  OpenMemory();
  IngestText("letters", "abcdefghijklmnopqrstuvwxyz\n\nThe quick brown fox jumps.\n");
  const auto answerer = MakeAnswerer();
  ASSERT_NE(answerer, nullptr);
  AskOptions options;
  options.max_tokens = 32;
  options.reread = 0;
  Conversation conversation;
  // Eight turns of 100 tokens and more pass the window of 512.
  for (int turn = 0; turn < 8; ++turn) {
    const auto answer = answerer->Ask(std::string(100, static_cast<char>('a' + turn)), options,
                                      nullptr, {}, &conversation);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_LE(answer->usage.prompt_tokens + options.max_tokens, kMaxPositions);
    EXPECT_GE(answer->usage.prompt_tokens, 100);
  }
}

TEST_F(ConversationTest, EarlierTurnsAreInThePromptUntilReset) {
  LoadModel();
  OpenMemory();
  IngestText("letters", "abcdefghijklmnopqrstuvwxyz\n");
  const auto answerer = MakeAnswerer();
  ASSERT_NE(answerer, nullptr);
  AskOptions options;
  options.max_tokens = 4;
  options.reread = 0;
  Conversation conversation;
  const auto first = answerer->Ask("Hello there", options, nullptr, {}, &conversation);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = answerer->Ask("Hello there", options, nullptr, {}, &conversation);
  ASSERT_TRUE(second.ok()) << second.status();
  if (!first->text.empty()) {
    EXPECT_GT(second->usage.prompt_tokens, first->usage.prompt_tokens);
  }
  conversation.Clear();
  const auto third = answerer->Ask("Hello there", options, nullptr, {}, &conversation);
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(third->usage.prompt_tokens, first->usage.prompt_tokens);
  EXPECT_EQ(third->text, first->text);
}

TEST_F(ConversationTest, WhatIsKeptBetweenTurnsDoesNotChangeAnswers) {
  LoadModel();
  OpenMemory();
  IngestText("letters", "abcdefghijklmnopqrstuvwxyz\n");
  AskOptions options;
  options.max_tokens = 8;
  options.reread = 0;
  // The first turn of a conversation is a question like any other; the second one finds its first
  // turn in the local context.
  const auto answerer = MakeAnswerer();
  ASSERT_NE(answerer, nullptr);
  Conversation conversation;
  const auto chatted = answerer->Ask("Hello there", options, nullptr, {}, &conversation);
  const auto asked = answerer->Ask("Hello there", options, nullptr, {});
  ASSERT_TRUE(chatted.ok()) << chatted.status();
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(chatted->text, asked->text);
  const auto second = answerer->Ask("And then?", options, nullptr, {}, &conversation);
  ASSERT_TRUE(second.ok()) << second.status();
  // Without a chat format a conversation is its messages, joined by empty lines.
  const auto joined =
      answerer->Ask("Hello there\n\n" + chatted->text + "\n\nAnd then?", options, nullptr, {});
  ASSERT_TRUE(joined.ok()) << joined.status();
  EXPECT_EQ(second->text, joined->text);
  EXPECT_EQ(second->usage.prompt_tokens, joined->usage.prompt_tokens);
}

}  // namespace
}  // namespace fovea::answer
