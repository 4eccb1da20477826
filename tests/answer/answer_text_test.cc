#include "answer/answer_text.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::answer {
namespace {

using ::testing::ElementsAre;

struct Received {
  std::vector<std::string> pieces;
  std::string text;
  bool at_stop = false;
};

Received Pass(const std::vector<std::string>& pieces, const std::vector<std::string>& stop,
              bool skip_leading_space = false) {
  Received received;
  const StreamCallback stream = [&](std::string_view piece) {
    received.pieces.emplace_back(piece);
    return true;
  };
  AnswerText text(skip_leading_space, stop, stream);
  for (const std::string& piece : pieces) text.Push(piece);
  text.Finish();
  received.at_stop = text.at_stop();
  received.text = text.Take();
  std::string streamed;
  for (const std::string& piece : received.pieces) streamed += piece;
  EXPECT_EQ(streamed, received.text);
  return received;
}

TEST(AnswerTextTest, WithoutStopStringsPiecesPassAsTheyCome) {
  EXPECT_THAT(Pass({"one", " two"}, {}).pieces, ElementsAre("one", " two"));
  EXPECT_EQ(Pass({" ", "\n one"}, {}, true).text, "one");
}

TEST(AnswerTextTest, AStopStringEndsTheTextWhereverPiecesEnd) {
  const std::string whole = "The key is here.\nQuestion: and then?";
  for (size_t length = 1; length <= whole.size(); ++length) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < whole.size(); at += length) pieces.push_back(whole.substr(at, length));
    const Received received = Pass(pieces, {"never", "\nQuestion:"});
    EXPECT_EQ(received.text, "The key is here.") << length;
    EXPECT_TRUE(received.at_stop);
  }
}

TEST(AnswerTextTest, TheFirstStopStringCounts) {
  EXPECT_EQ(Pass({"abcdef"}, {"ef", "cd"}).text, "ab");
  EXPECT_EQ(Pass({"ab", "cdef"}, {"def", "bc"}).text, "a");
}

TEST(AnswerTextTest, WhatOnlyBeginsLikeAStopStringIsGivenBack) {
  const Received received = Pass({"a<", "<", "b", "<<"}, {"<<<"});
  EXPECT_EQ(received.text, "a<<b<<");
  EXPECT_FALSE(received.at_stop);
  // "aab" within "aaab": the search goes on within what waited.
  EXPECT_EQ(Pass({"a", "a", "a", "b", "c"}, {"aab"}).text, "a");
}

TEST(AnswerTextTest, OnlyWhatMayBeAStopStringWaits) {
  EXPECT_THAT(Pass({"one ", "two", " three"}, {" three!"}).pieces,
              ElementsAre("one", " two", " three"));
}

TEST(AnswerTextTest, PiecesDoNotEndWithinACharacter) {
  // The second byte of é begins the stop string.
  const Received received = Pass({"caf\xC3\xA9", "s"}, {"\xA9x"});
  EXPECT_THAT(received.pieces, ElementsAre("caf", "\xC3\xA9s"));
}

TEST(AnswerTextTest, AReceiverThatWantsNoMoreGetsNoMore) {
  int n_pieces = 0;
  const StreamCallback stream = [&](std::string_view) { return ++n_pieces < 2; };
  AnswerText text(false, {}, stream);
  text.Push("one");
  EXPECT_FALSE(text.is_refused());
  text.Push("two");
  EXPECT_TRUE(text.is_refused());
  text.Push("three");
  text.Finish();
  EXPECT_EQ(n_pieces, 2);
  EXPECT_EQ(text.Take(), "onetwo");
}

}  // namespace
}  // namespace fovea::answer
