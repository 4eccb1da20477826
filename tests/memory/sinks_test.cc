#include "memory/sinks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace fovea::memory {
namespace {

using storage::TokenRange;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> Repeat(const std::vector<int32_t>& pattern, int n) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i) ids.insert(ids.end(), pattern.begin(), pattern.end());
  return ids;
}

std::vector<int32_t> operator+(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(SinksTest, RunsOfOneTokenAreFound) {
  const std::vector<int32_t> words = {1, 2, 3};
  EXPECT_THAT(FindRepeats({}, words + Repeat({9}, 8) + words), ElementsAre(TokenRange{3, 10}));
  EXPECT_THAT(FindRepeats({}, words + Repeat({9}, 7) + words), IsEmpty());
  EXPECT_THAT(FindRepeats({}, Repeat({9}, 1000)), ElementsAre(TokenRange{0, 1000}));
}

TEST(SinksTest, PatternsOfUpToFourTokensAreFound) {
  const std::vector<int32_t> words = {1, 2, 3};
  EXPECT_THAT(FindRepeats({}, words + Repeat({7, 8}, 4) + words), ElementsAre(TokenRange{3, 10}));
  EXPECT_THAT(FindRepeats({}, words + Repeat({6, 7, 8}, 3) + words),
              ElementsAre(TokenRange{3, 11}));
  EXPECT_THAT(FindRepeats({}, words + Repeat({5, 6, 7, 8}, 3) + words),
              ElementsAre(TokenRange{3, 14}));
  // A sentence said twice, a refrain: text.
  EXPECT_THAT(FindRepeats({}, words + Repeat({5, 6, 7, 8}, 2) + words), IsEmpty());
  EXPECT_THAT(FindRepeats({}, Repeat({4, 5, 6, 7, 8}, 20)), IsEmpty());
}

TEST(SinksTest, ARunThatBeganBeforeTheWindowGoesOnInIt) {
  EXPECT_THAT(FindRepeats(Repeat({9}, 6), Repeat({9}, 2) + std::vector<int32_t>{1, 2}),
              ElementsAre(TokenRange{0, 4}));
  EXPECT_THAT(FindRepeats(Repeat({9}, 20), std::vector<int32_t>{1, 2, 9, 9}),
              ElementsAre(TokenRange{0, 2}));
  EXPECT_THAT(
      FindRepeats(Repeat({9}, 20) + std::vector<int32_t>{1, 2}, std::vector<int32_t>{3, 9, 9}),
      IsEmpty());
}

// Every token that is found lies in a run by the definition, and every one that does is found.
TEST(SinksTest, RandomTokensAreJudgedByTheDefinition) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> all;
    while (all.size() < 120) {
      std::vector<int32_t> pattern(1 + random() % 5);
      for (int32_t& id : pattern) id = static_cast<int32_t>(random() % 3);
      all = std::move(all) + Repeat(pattern, 1 + static_cast<int>(random() % 6));
    }
    const size_t n_context = random() % 40;
    std::vector<bool> expected(all.size());
    for (size_t period = 1; period <= 4; ++period) {
      for (size_t begin = 0; begin < all.size(); ++begin) {
        if (begin + period > all.size()) continue;
        size_t end = begin + period;
        while (end < all.size() && all[end] == all[end - period]) ++end;
        if (end - begin < std::max<size_t>(8, 3 * period)) continue;
        for (size_t t = begin; t < std::min(end + 2, all.size()); ++t) expected[t] = true;
      }
    }
    const std::vector<TokenRange> ranges = FindRepeats(
        std::span(all).first(n_context), std::span<const int32_t>(all).subspan(n_context));
    std::vector<bool> found(all.size());
    uint32_t end = 0;
    for (const TokenRange& range : ranges) {
      ASSERT_GT(range.n_tokens, 0u);
      ASSERT_TRUE(end == 0 || range.begin > end);
      end = range.begin + range.n_tokens;
      for (uint32_t t = range.begin; t < end; ++t) found[n_context + t] = true;
    }
    for (size_t t = n_context; t < all.size(); ++t) ASSERT_EQ(found[t], expected[t]) << t;
  }
}

TEST(SinksTest, WhatLiesBetweenIsVisitedInOrder) {
  const auto others = [](const std::vector<TokenRange>& ranges, uint32_t n) {
    std::vector<std::pair<uint32_t, uint32_t>> result;
    ForEachOther(ranges, n, [&](uint32_t begin, uint32_t end) { result.emplace_back(begin, end); });
    return result;
  };
  EXPECT_THAT(others({}, 5), ElementsAre(std::pair(0u, 5u)));
  EXPECT_THAT(others({{0, 5}}, 5), IsEmpty());
  EXPECT_THAT(others({{1, 2}, {4, 1}}, 7),
              ElementsAre(std::pair(0u, 1u), std::pair(3u, 4u), std::pair(5u, 7u)));
}

}  // namespace
}  // namespace fovea::memory
