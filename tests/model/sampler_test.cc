#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::model {
namespace {

// Logits whose softmax at temperature 1 is 0.4, 0.3, 0.2, 0.1, not in this order.
std::vector<float> FourTokens() {
  return {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};
}

std::vector<int32_t> Draw(const SamplingOptions& options, int n) {
  Sampler sampler(options);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.push_back(sampler.Sample(FourTokens()));
  return ids;
}

std::set<int32_t> Drawn(float top_p) {
  const std::vector<int32_t> ids = Draw({.temperature = 1.0f, .top_p = top_p, .seed = 5}, 2000);
  return {ids.begin(), ids.end()};
}

TEST(SamplerTest, WithoutATemperatureTheLargestLogitWins) {
  EXPECT_EQ(Draw({.top_p = 0.5f, .seed = 3}, 3), (std::vector<int32_t>{1, 1, 1}));
}

TEST(SamplerTest, TopPKeepsTheFewestLikeliestTokensWithThisShare) {
  EXPECT_EQ(Drawn(1e-6f), (std::set<int32_t>{1}));
  EXPECT_EQ(Drawn(0.39f), (std::set<int32_t>{1}));
  EXPECT_EQ(Drawn(0.41f), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(Drawn(0.71f), (std::set<int32_t>{0, 1, 3}));
  EXPECT_EQ(Drawn(0.95f), (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(Drawn(1.0f), (std::set<int32_t>{0, 1, 2, 3}));
}

TEST(SamplerTest, WithinTheNucleusProbabilitiesKeepTheirRatio) {
  const std::vector<int32_t> ids = Draw({.temperature = 1.0f, .top_p = 0.6f, .seed = 11}, 7000);
  const auto n_first = std::count(ids.begin(), ids.end(), 1);
  // 4 of 7 are expected; 5 standard deviations of the count are 207.
  EXPECT_NEAR(static_cast<double>(n_first), 4000.0, 207.0);
}

// Of a vocabulary as large as models have; some of its logits are far below the others.
TEST(SamplerTest, TokensAreDrawnByTheirShares) {
  constexpr int kTokens = 3001;
  constexpr int kDraws = 20000;
  std::vector<float> logits;
  double total = 0.0;
  std::vector<double> shares;
  for (int i = 0; i < kTokens; ++i) {
    logits.push_back(i % 500 == 7 ? -300.0f : 20.0f - static_cast<float>(i % 1000) * 0.01f);
    shares.push_back(std::exp(logits.back() / 0.8));
    total += shares.back();
  }
  Sampler sampler({.temperature = 0.8f, .seed = 4});
  constexpr int kParts = 15;
  std::vector<double> drawn(kParts), expected(kParts);
  const auto part_of = [](int id) { return id * kParts / kTokens; };
  for (int i = 0; i < kTokens; ++i) expected[part_of(i)] += shares[i] / total * kDraws;
  for (int i = 0; i < kDraws; ++i) {
    const int32_t id = sampler.Sample(logits);
    EXPECT_NE(id % 500, 7);
    ++drawn[part_of(id)];
  }
  for (int part = 0; part < kParts; ++part) {  // 5 standard deviations of a count
    EXPECT_NEAR(drawn[part], expected[part], 5.0 * std::sqrt(expected[part]) + 1.0) << part;
  }
}

TEST(SamplerTest, TheSeedDecides) {
  const SamplingOptions options{.temperature = 1.0f, .top_p = 0.95f, .seed = 7};
  EXPECT_EQ(Draw(options, 100), Draw(options, 100));
  SamplingOptions other = options;
  other.seed = 8;
  EXPECT_NE(Draw(options, 100), Draw(other, 100));
}

TEST(SamplerTest, EqualTokensEnterTheNucleusById) {
  Sampler sampler({.temperature = 1.0f, .top_p = 0.4f, .seed = 1});
  std::set<int32_t> drawn;
  for (int i = 0; i < 500; ++i) drawn.insert(sampler.Sample(std::vector<float>(4, 2.5f)));
  EXPECT_EQ(drawn, (std::set<int32_t>{0, 1}));
}

}  // namespace
}  // namespace fovea::model
