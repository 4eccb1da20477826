#include "answer/excerpt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/status.h"
#include "documents/utf8.h"

namespace fovea::answer {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

memory::Passage PassageOf(const std::string& text, uint64_t start = 1000) {
  memory::Passage passage;
  passage.start = start;
  passage.end = start + text.size();
  passage.text = text;
  passage.peak_start = passage.peak_end = start;
  return passage;
}

std::string ExcerptFor(const std::string& text, const std::string& wanted) {
  memory::Passage passage = PassageOf(text);
  ChooseExcerpt(wanted, {}, &passage);
  return std::string(passage.excerpt());
}

size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// Sentences that say nothing of what is looked for.
std::string Filler(int n_sentences, const std::string& seed) {
  std::string text;
  for (int i = 0; i < n_sentences; ++i) {
    text += StrCat("Sentence ", seed, i, " tells of the weather and of the long road. ");
  }
  return text;
}

TEST(ExcerptTest, IsAllOfAShortPassage) {
  EXPECT_EQ(ExcerptFor("  A short one.\n\nIn two parts.\n", "parts"),
            "  A short one.\n\nIn two parts.\n");
  EXPECT_EQ(ExcerptFor("", "what"), "");
  EXPECT_EQ(ExcerptFor(" \n", "what"), " \n");
}

TEST(ExcerptTest, BeginsWithTheSentenceThatHasTheWords) {
  const std::string sentence = "Marta hid the brass key under the third stair.";
  const std::string text = Filler(8, "a") + sentence + " " + Filler(8, "b");
  for (const char* wanted : {"Where is the brass key?", "Who hid keys?", "THIRD STAIRS"}) {
    EXPECT_THAT(ExcerptFor(text, wanted), StartsWith(sentence)) << wanted;
  }
}

TEST(ExcerptTest, RareWordsCountMost) {
  // "weather" and "road" are everywhere, "otter" is in one place.
  const std::string text = Filler(8, "a") + "An otter was there, too. " + Filler(8, "b");
  EXPECT_THAT(ExcerptFor(text, "the road, the weather, the otter"), HasSubstr("An otter"));
}

TEST(ExcerptTest, IsTheBeginningWhereNothingMatches) {
  const std::string text = Filler(10, "a");
  EXPECT_THAT(ExcerptFor(text, "zebrafish"), StartsWith("Sentence a0 tells"));
  EXPECT_THAT(ExcerptFor(text, ""), StartsWith("Sentence a0 tells"));
}

TEST(ExcerptTest, IsWhereAttentionIsWhereNoWordMatches) {
  const std::string said = "Under the third stair.";
  memory::Passage passage = PassageOf(Filler(8, "a") + said + " " + Filler(8, "b"));
  passage.peak_start = passage.start + passage.text.find("third");
  passage.peak_end = passage.peak_start + 11;
  ChooseExcerpt("Where is it?", {}, &passage);
  EXPECT_THAT(std::string(passage.excerpt()), StartsWith(said));
}

TEST(ExcerptTest, WordsTogetherCountMoreThanAttention) {
  memory::Passage passage = PassageOf(Filler(8, "a") + "The brass key is here. " + Filler(8, "b"));
  passage.peak_start = passage.start;
  passage.peak_end = passage.start + 10;
  ChooseExcerpt("brass key", {}, &passage);
  EXPECT_THAT(std::string(passage.excerpt()), HasSubstr("brass key"));
}

TEST(ExcerptTest, AMatchAtTheEndFillsTheRoomBeforeIt) {
  const std::string text = Filler(10, "a") + "The key is brass.";
  const std::string excerpt = ExcerptFor(text, "brass key");
  EXPECT_THAT(excerpt, EndsWith("The key is brass."));
  EXPECT_GT(Characters(excerpt), kExcerptCharacters / 2);
}

TEST(ExcerptTest, FindsWordsOfScriptsWithoutSpaces) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "今日はとても良い天気です。";
  text += "鍵は青い石の下にあります。";
  for (int i = 0; i < 60; ++i) text += "今日はとても良い天気です。";
  EXPECT_THAT(ExcerptFor(text, "青い石はどこ？"), HasSubstr("青い石"));
}

TEST(ExcerptTest, IsCutBetweenWhatPeopleSeeAsCharacters) {
  const std::string units[] = {"👨\u200D👩\u200D👧\u200D👦", "e\u0301\u0323", "🇩🇰",
                               "\u1112\u1161\u11AB", "👍\U0001F3FD"};
  for (const std::string& unit : units) {
    // However many plain ones stand before them.
    for (int n_before = 0; n_before < 30; ++n_before) {
      std::string text(static_cast<size_t>(n_before), 'x');
      const size_t first = text.size();
      for (int i = 0; i < 200; ++i) text += unit;
      memory::Passage passage = PassageOf(text, 0);
      passage.peak_start = text.size() / 2;
      passage.peak_end = text.size() / 2 + 10;
      ChooseExcerpt("", {}, &passage);
      ASSERT_LT(passage.excerpt_end - passage.excerpt_start, text.size());
      EXPECT_GT(Characters(passage.excerpt()), kExcerptCharacters / 2);
      EXPECT_LE(Characters(passage.excerpt()), kExcerptCharacters);
      for (const uint64_t cut : {passage.excerpt_start, passage.excerpt_end}) {
        EXPECT_TRUE(cut < first || (cut - first) % unit.size() == 0) << unit << " at " << cut;
      }
    }
  }
}

// A passage's own edge may lie within one.
TEST(ExcerptTest, HasNoPartOfACharacterThatThePassageCuts) {
  const std::string units[] = {"👨\u200D👩\u200D👧\u200D👦", "e\u0301\u0323", "🇩🇰",
                               "\u1112\u1161\u11AB",     "👍\U0001F3FD",   "\r\n"};
  for (const std::string& unit : units) {
    for (const int n_units : {3, 200}) {  // shown whole, and a part of it
      std::string document;
      for (int i = 0; i < n_units + 8; ++i) document += unit;
      for (size_t begin = 0; begin < 2 * unit.size(); ++begin) {
        for (size_t end = document.size() - 2 * unit.size(); end < document.size(); ++end) {
          const auto is_inner = [&](size_t at) {
            return (static_cast<unsigned char>(document[at]) & 0xC0) == 0x80;
          };
          if (is_inner(begin) || is_inner(end)) continue;
          memory::Passage passage = PassageOf(document.substr(begin, end - begin), begin);
          const memory::Surroundings around = {.before = document.substr(0, begin),
                                               .after = document.substr(end)};
          ChooseExcerpt("", around, &passage);
          EXPECT_EQ(passage.excerpt_start % unit.size(), 0u) << unit << " " << begin;
          EXPECT_EQ(passage.excerpt_end % unit.size(), 0u) << unit << " " << end;
          EXPECT_GE(passage.excerpt_start, passage.start);
          EXPECT_LE(passage.excerpt_end, passage.end);
          EXPECT_GT(Characters(passage.excerpt()), n_units == 3 ? 1 : kExcerptCharacters / 2);
        }
      }
    }
  }
  // Of one that goes on over both edges, a part is all that there is.
  memory::Passage passage = PassageOf("\u0301\u0301");
  ChooseExcerpt("", {.before = "a\u0301", .after = "\u0301"}, &passage);
  EXPECT_EQ(passage.excerpt(), passage.text);
}

TEST(ExcerptTest, IsNoLongerWhereALetterHasAnyNumberOfMarks) {
  std::string text;
  for (int i = 0; i < 3; ++i) {
    text += 'a';
    for (int mark = 0; mark < 500; ++mark) text += "\u0301";
  }
  const std::string excerpt = ExcerptFor(text, "");
  EXPECT_LE(Characters(excerpt), kExcerptCharacters);
  EXPECT_GT(Characters(excerpt), kExcerptCharacters / 2);
}

// Whatever the text: a part of it, of whole characters, not too long, with what is there once.
TEST(ExcerptTest, IsAPartOfAnyText) {
  std::mt19937 random(3);
  const std::string parts[] = {"word ",  "längeres ", "。", "中文字", "\n\n",   ". ",
                               " ",      "x",         "\t", "😀",      "a.b.c ", "“quote” ",
                               "\u0301", "\u200D",    "🇩",  "\r\n"};
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (uint32_t n = random() % 400; n > 0; --n) text += parts[random() % std::size(parts)];
    const size_t at = text.empty() ? 0 : text.find(' ');
    if (at != std::string::npos && random() % 2 == 0) text.insert(at, " zebrafish ");
    memory::Passage passage = PassageOf(text, random() % 5000);
    if (!text.empty()) {
      passage.peak_start = passage.start + random() % text.size();
      passage.peak_end = passage.peak_start + random() % (passage.end - passage.peak_start) + 1;
    }
    ChooseExcerpt("zebrafish 文字", {}, &passage);
    ASSERT_LE(passage.start, passage.excerpt_start);
    ASSERT_LE(passage.excerpt_start, passage.excerpt_end);
    ASSERT_LE(passage.excerpt_end, passage.end);
    const std::string excerpt(passage.excerpt());
    EXPECT_EQ(documents::ScanUtf8(excerpt).valid_bytes, excerpt.size());
    if (excerpt != text) {
      EXPECT_LE(Characters(excerpt), kExcerptCharacters);
      EXPECT_THAT(excerpt, Not(StartsWith(" ")));
    }
  }
}

}  // namespace
}  // namespace fovea::answer
