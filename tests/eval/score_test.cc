#include "eval/score.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::eval {
namespace {

using Strings = std::vector<std::string>;

TEST(ScoreTest, NormalisesAsSquadDoes) {
  EXPECT_EQ(NormalizeAnswer("  The Quick-brown\tfox, an  A. "), "quickbrown fox");
  EXPECT_EQ(NormalizeAnswer("theatre"), "theatre");
  EXPECT_EQ(NormalizeAnswer("The a an."), "");
  EXPECT_EQ(NormalizeAnswer("Café 3"), "café 3");
}

TEST(ScoreTest, F1CountsWordsOnceEach) {
  EXPECT_DOUBLE_EQ(WordF1("the red door", Strings{"red door"}), 1.0);
  // 2 of 3 words of the answer, 2 of 4 of the reference.
  EXPECT_DOUBLE_EQ(WordF1("red door opened", Strings{"red door of house"}), 2.0 * 2 / (3 + 4));
  EXPECT_DOUBLE_EQ(WordF1("red red red", Strings{"red"}), 2.0 * 1 / (3 + 1));
  EXPECT_DOUBLE_EQ(WordF1("blue", Strings{"red", "deep blue"}), 2.0 * 1 / (1 + 2));
  EXPECT_DOUBLE_EQ(WordF1("", Strings{"red"}), 0.0);
  EXPECT_DOUBLE_EQ(WordF1("the", Strings{"the"}), 0.0);
  EXPECT_DOUBLE_EQ(WordF1("red", Strings{}), 0.0);
}

TEST(ScoreTest, WholeWordsAreHeld) {
  EXPECT_TRUE(Holds("It was in the attic, she said.", Strings{"The Attic"}));
  EXPECT_TRUE(Holds("red door", Strings{"blue", "door"}));
  EXPECT_FALSE(Holds("It is 36.", Strings{"3"}));
  EXPECT_FALSE(Holds("door red", Strings{"red door"}));
  EXPECT_FALSE(Holds("anything", Strings{"the"}));
  EXPECT_TRUE(IsExactMatch("The attic.", Strings{"cellar", "attic"}));
  EXPECT_FALSE(IsExactMatch("in the attic", Strings{"attic"}));
}

TEST(ScoreTest, RatesHaveWilsonsIntervals) {
  // Computed by hand: z = 1.96, z² = 3.8415.
  const Score all = RateScore(10, 10);
  EXPECT_DOUBLE_EQ(all.value, 100.0);
  EXPECT_NEAR(all.low, 100.0 * 10 / (10 + 3.8415), 0.01);
  EXPECT_DOUBLE_EQ(all.high, 100.0);
  const Score half = RateScore(50, 100);
  EXPECT_NEAR(half.low, 40.38, 0.01);
  EXPECT_NEAR(half.high, 59.62, 0.01);
  EXPECT_DOUBLE_EQ(RateScore(0, 20).low, 0.0);
  EXPECT_NEAR(RateScore(0, 20).high, 100.0 * 3.8415 / (20 + 3.8415), 0.01);
  EXPECT_EQ(RateScore(0, 0).n, 0);
  EXPECT_DOUBLE_EQ(RateScore(0, 0).high, 100.0);
}

TEST(ScoreTest, MeansOfRightAndWrongAreNearlyRates) {
  std::vector<double> values(100, 0.0);
  std::fill_n(values.begin(), 30, 1.0);
  const Score mean = MeanScore(values);
  const Score rate = RateScore(30, 100);
  EXPECT_NEAR(mean.value, rate.value, 1e-9);
  // The sample's variance is n / (n − 1) of the rate's.
  EXPECT_NEAR(mean.low, rate.low, 0.1);
  EXPECT_NEAR(mean.high, rate.high, 0.1);
}

TEST(ScoreTest, ValuesThatVaryLittleHaveANarrowerInterval) {
  std::vector<double> values;
  for (int i = 0; i < 100; ++i) values.push_back(i % 2 == 0 ? 0.45 : 0.55);
  const Score mean = MeanScore(values);
  EXPECT_NEAR(mean.value, 50.0, 1e-9);
  // 1.96 · 0.0503 / 10, in percent.
  EXPECT_NEAR(mean.high - mean.value, 0.985, 0.03);
  EXPECT_NEAR(mean.value - mean.low, 0.985, 0.03);
  EXPECT_EQ(mean.n, 100);
  // All the same, or one alone: sure of nothing that ten answers would not tell.
  EXPECT_GT(
      MeanScore(std::vector<double>(10, 1.0)).high - MeanScore(std::vector<double>(10, 1.0)).low,
      20.0);
  EXPECT_EQ(MeanScore(std::vector<double>{}).n, 0);
}

TEST(ScoreTest, RatiosAreOfPairs) {
  const Score ratio = RatioScore(std::vector<double>{std::log(0.5), std::log(2.0)});
  EXPECT_NEAR(ratio.value, 1.0, 1e-12);
  // The deviation of ±log 2 is log 2 · √2, of the mean log 2; one degree of freedom.
  EXPECT_NEAR(ratio.high, std::exp(12.706 * std::log(2.0)), 1.0);
  EXPECT_EQ(ratio.kind, Score::Kind::kRatio);
  const Score sure = RatioScore(std::vector<double>{0.1, 0.1, 0.1});
  EXPECT_NEAR(sure.low, sure.high, 1e-12);
}

TEST(ScoreTest, Medians) {
  EXPECT_EQ(Median({}), 0.0);
  EXPECT_EQ(Median({3, 1, 2}), 2.0);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
}

}  // namespace
}  // namespace fovea::eval
