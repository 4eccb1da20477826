#include "answer/sentence_marks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "answer/shared_words.h"
#include "base/status.h"
#include "documents/utf8.h"

namespace fovea::answer {
namespace {

using ::testing::ElementsAre;

struct Marked {
  std::string text;
  std::string streamed;
  std::vector<std::string> sentences;
  std::vector<SourceMark> marks;
};

// Marks each sentence with its number, in pieces of at most `n_bytes`, each of whole characters.
Marked Mark(std::string_view text, size_t n_bytes, int only = 0) {
  Marked marked;
  const StreamCallback stream = [&](std::string_view piece) {
    marked.streamed += piece;
    return true;
  };
  SentenceMarks marks(
      [&](std::string_view sentence) {
        marked.sentences.emplace_back(sentence);
        const auto number = static_cast<int>(marked.sentences.size());
        return only == 0 || number == only ? number : 0;
      },
      stream);
  while (!text.empty()) {
    std::string_view piece = documents::Utf8Prefix(text, n_bytes);
    if (piece.empty()) piece = documents::Utf8Prefix(text, 4);
    EXPECT_TRUE(marks.Push(piece));
    text.remove_prefix(piece.size());
  }
  marks.Finish();
  marked.text = marks.TakeText();
  marked.marks = marks.TakeMarks();
  return marked;
}

TEST(SentenceMarksTest, StandBehindEachSentence) {
  const std::pair<std::string, std::string> cases[] = {
      {"The key is here.", "The key is here. [1]"},
      {"Marta", "Marta [1]"},
      {"One. Two! Three?", "One. [1] Two! [2] Three? [3]"},
      {"He said “Go.” Then he went.\n", "He said “Go.” [1] Then he went. [2]\n"},
      {"(It is so.) Yes… No", "(It is so.) [1] Yes… [2] No [3]"},
      {"It is 3.5 m long. Done.", "It is 3.5 m long. [1] Done. [2]"},
      {"In 1912. Later.", "In 1912. [1] Later. [2]"},
      {"Mr. Brandt and Dr. Lind met J. Roe. They left.",
       "Mr. Brandt and Dr. Lind met J. Roe. [1] They left. [2]"},
      {"1. Bread\n2. Rolls\n\nBoth", "1. Bread [1]\n2. Rolls [2]\n\nBoth [3]"},
      {"鍵は石の下。「庭。」そこです", "鍵は石の下。 [1]「庭。」 [2]そこです [3]"},
      {"", ""},
      {" \n", " \n"},
  };
  for (const auto& [text, want] : cases) {
    // However the text comes.
    for (const size_t n_bytes : {1, 2, 3, 7, 1000}) {
      const Marked marked = Mark(text, n_bytes);
      EXPECT_EQ(marked.text, want) << n_bytes;
      EXPECT_EQ(marked.streamed, want);
      for (const SourceMark& mark : marked.marks) {
        EXPECT_EQ(marked.text.substr(mark.start, mark.end - mark.start),
                  StrCat("[", mark.source, "]"));
      }
    }
  }
}

TEST(SentenceMarksTest, ASentenceWithoutASourceHasNone) {
  const Marked marked = Mark("One. Two. Three.", 4, /*only=*/2);
  EXPECT_EQ(marked.text, "One. Two. [2] Three.");
  EXPECT_THAT(marked.sentences, ElementsAre("One.", "Two.", "Three."));
  ASSERT_EQ(marked.marks.size(), 1U);
  EXPECT_EQ(marked.marks[0].start, 10U);
}

TEST(SentenceMarksTest, AReceiverThatWantsNoMoreIsTold) {
  const StreamCallback refuses = [](std::string_view) { return false; };
  SentenceMarks marks([](std::string_view) { return 0; }, refuses);
  EXPECT_TRUE(marks.Push(" "));  // it waits
  EXPECT_FALSE(marks.Push("word"));
}

TEST(SharedWordsTest, CountWordsThatTheTextHas) {
  const std::string text = "Marta Lindqvist kept the lamps of the lighthouse. 鍵は青い石の下。";
  EXPECT_EQ(ShareOfWords("Marta Lindqvist.", text), 1.0);
  EXPECT_EQ(ShareOfWords("MARTA kept a lamp", text), 1.0);
  EXPECT_EQ(ShareOfWords("Marta, the baker of bread", text), 1.0 / 3.0);
  EXPECT_EQ(ShareOfWords("Ottokar", text), 0.0);
  EXPECT_EQ(ShareOfWords("It was of the", text), 0.0);  // stop words alone
  EXPECT_EQ(ShareOfWords("", text), 0.0);
  EXPECT_EQ(ShareOfWords("青い石", text), 1.0);
  EXPECT_EQ(ShareOfWords("赤犬", text), 0.0);
}

}  // namespace
}  // namespace fovea::answer
