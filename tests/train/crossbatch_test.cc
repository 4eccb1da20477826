#include "train/crossbatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fovea::train {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CrossbatchTest, EveryDocumentSeesItsOwnPreviousContextAndThoseAfterIt) {
  const auto seen = SeePreviousContexts(4, 3);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_THAT(*seen, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(1, 2, 3), ElementsAre(2, 3, 0),
                                 ElementsAre(3, 0, 1)));
  EXPECT_THAT(*SeePreviousContexts(2, 1), ElementsAre(ElementsAre(0), ElementsAre(1)));
  for (const auto& [n, d] : {std::pair{4, 5}, {4, 0}, {0, 1}, {4, -1}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(SeePreviousContexts(n, d).status())) << n << " " << d;
  }
}

TEST(CrossbatchTest, EntriesOfPacksSeeTheEntriesBeforeThem) {
  const auto seen = SeeEarlierEntries(6, {.packing = 3, .range = 2});
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_THAT(*seen, ElementsAre(IsEmpty(), ElementsAre(0), ElementsAre(1, 0), ElementsAre(2, 1),
                                 ElementsAre(3, 2), ElementsAre(4, 3)));
  EXPECT_THAT(*SeeEarlierEntries(2, {.packing = 1, .range = 0}), ElementsAre(IsEmpty(), IsEmpty()));
  EXPECT_TRUE(absl::IsInvalidArgument(SeeEarlierEntries(5, {.packing = 2, .range = 1}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SeeEarlierEntries(4, {.packing = 2, .range = -1}).status()));
}

// The formula of the paper's code, by hand: packs of 4, range 3: ceil(4 / 3) = 2 more with each.
TEST(CrossbatchTest, SteppingAddsContextsAlongAPack) {
  const auto seen = SeeEarlierEntries(8, {.packing = 4, .range = 3, .stepping = true});
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_THAT(
      *seen, ElementsAre(IsEmpty(), ElementsAre(0), ElementsAre(1, 0), ElementsAre(2, 1, 0),
                         IsEmpty(), ElementsAre(4, 3), ElementsAre(5, 4, 3), ElementsAre(6, 5, 4)));
}

TEST(CrossbatchTest, PartsOfABatchHaveTheirOwnPacking) {
  const auto packings = ParsePackings("0+0,1+1");
  ASSERT_TRUE(packings.ok()) << packings.status();
  const auto seen = SeeEarlierEntriesOfParts(8, *packings);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_THAT(*seen, ElementsAre(IsEmpty(), IsEmpty(), IsEmpty(), IsEmpty(), IsEmpty(),
                                 ElementsAre(4), ElementsAre(5, 4), ElementsAre(6, 5)));
  EXPECT_TRUE(absl::IsInvalidArgument(SeeEarlierEntriesOfParts(7, *packings).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SeeEarlierEntriesOfParts(6, *packings).status()));
  for (const char* wrong : {"", "1", "1+", "a+1", "-1+1", "1+1,"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParsePackings(wrong).status())) << wrong;
  }
}

}  // namespace
}  // namespace fovea::train
