#include "eval/dictionary.h"

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class DictionaryTest : public TinySubjectTest {
 protected:
  static DictionaryOptions Options() {
    return {.common = {.ways = {.ways = {}, .modes = {"exact", "dense"}},
                       .tokens = {1000, 2500},
                       .texts = {},
                       .seed = 3,
                       .visit = nullptr},
            .n_questions = 40,
            .n_lookalikes = 3};
  }
};

TEST(CountRightTest, ASymbolIsRightWhereTheTokenBeforeItFavoursIt) {
  // Two records of ten tokens; answers are tokens 5 to 8 of each.
  std::vector<int32_t> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(i % 7);
  constexpr size_t kVocabulary = 8;
  std::vector<float> logits(ids.size() * kVocabulary, 0.0f);
  const auto favour = [&](size_t at, int32_t id) {
    logits[at * kVocabulary + static_cast<size_t>(id)] = 1.0f;
  };
  for (size_t i = 0; i + 1 < ids.size(); ++i) favour(i, ids[i + 1]);
  LookedUp all;
  CountRight(ids, logits, &all);
  EXPECT_EQ(all.n_symbols, 8);
  EXPECT_EQ(all.n_right_symbols, 8);
  EXPECT_EQ(all.n_right_words, 2);
  // Something else is likelier behind the second record's mark; what lies outside of answers does
  // not count.
  logits[14 * kVocabulary + 7] = 2.0f;
  logits[9 * kVocabulary + 7] = 2.0f;
  logits[18 * kVocabulary + 7] = 2.0f;
  LookedUp most;
  CountRight(ids, logits, &most);
  EXPECT_EQ(most.n_right_symbols, 7);
  EXPECT_EQ(most.n_words, 2);
  EXPECT_EQ(most.n_right_words, 1);
}

TEST_F(DictionaryTest, EverySizeAndModeHasARow) {
  const auto report = RunDictionary(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(4));
  for (const Row& row : report->rows) {
    // As many as were wanted: 25 in a sequence, and 15.
    EXPECT_EQ(std::get<Score>(Get(row, "answers")).n, 40);
    EXPECT_EQ(std::get<Score>(Get(row, "right")).n, 160);
    EXPECT_LT(Value(row, "right"), 20.0);  // random weights
  }
  EXPECT_EQ(Value(report->rows[0], "tokens"), 1000);
  EXPECT_EQ(Value(report->rows[3], "tokens"), 2500);
  EXPECT_EQ(Text(report->rows[0], "way"), "memory, exact");
  const auto again = RunDictionary(subject_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Written(*report), Written(*again));
}

TEST_F(DictionaryTest, WhatCannotBeAskedIsSaid) {
  DictionaryOptions options = Options();
  options.n_lookalikes = 64;
  EXPECT_THAT(std::string(RunDictionary(subject_, options).status().message()),
              HasSubstr("at most 63 look-alikes"));
  options = Options();
  options.common.tokens = {9};
  EXPECT_THAT(std::string(RunDictionary(subject_, options).status().message()),
              HasSubstr("--tokens 9"));
}

}  // namespace
}  // namespace fovea::eval
