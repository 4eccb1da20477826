#include <gmock/gmock.h>

#include <utility>
#include <vector>

#include "memory/search/attribution.h"

namespace fovea::memory {
namespace {

using ::testing::ElementsAre;

// Passages by their first slots, best first.
std::vector<Passage> Ranking(const std::vector<std::pair<storage::Slot, double>>& scores) {
  std::vector<Passage> ranking;
  for (const auto& [slot, score] : scores) {
    Passage passage;
    passage.slot_begin = slot;
    passage.score = score;
    ranking.push_back(std::move(passage));
  }
  return ranking;
}

std::vector<storage::Slot> Fused(const std::vector<std::pair<storage::Slot, double>>& by_mass,
                                 const std::vector<std::pair<storage::Slot, double>>& by_words,
                                 int n = 10) {
  std::vector<storage::Slot> slots;
  for (const Passage& passage : FuseScores(Ranking(by_mass), Ranking(by_words), n)) {
    slots.push_back(passage.slot_begin);
  }
  return slots;
}

// Of two, the ranking that tells them apart decides, whichever it is and whichever comes first.
TEST(FuseScoresTest, WhatHardlyTellsPassagesApartDoesNotDecide) {
  for (const storage::Slot first : {1, 2}) {
    const storage::Slot second = 3 - first;
    EXPECT_THAT(Fused({{second, -3.0}, {first, -3.4}}, {{first, 1.2}, {second, 0.5}}),
                ElementsAre(first, second));
    EXPECT_THAT(Fused({{first, -1.0}, {second, -9.0}}, {{second, 1.20}, {first, 1.19}}),
                ElementsAre(first, second));
  }
}

TEST(FuseScoresTest, ARankingThatTellsNothingApartLeavesItToTheOther) {
  EXPECT_THAT(Fused({{2, -3.0}, {1, -3.4}}, {{1, 0.7}, {2, 0.7}}), ElementsAre(2, 1));
  EXPECT_THAT(Fused({{2, -3.0}, {1, -3.0}}, {{1, 0.8}, {2, 0.7}}), ElementsAre(1, 2));
  EXPECT_THAT(Fused({}, {{4, 0.8}, {2, 0.7}}), ElementsAre(4, 2));
  EXPECT_THAT(Fused({{4, -1.0}, {2, -2.0}}, {}, 1), ElementsAre(4));
}

// What is good in both comes before what is best in one and bad in the other.
TEST(FuseScoresTest, AddsWhatBothSay) {
  EXPECT_THAT(Fused({{1, -1.0}, {2, -2.0}, {3, -9.0}}, {{3, 5.0}, {2, 4.5}, {1, 1.0}}).front(), 2);
}

}  // namespace
}  // namespace fovea::memory
