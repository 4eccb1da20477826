#include "cli/progress_bar.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(FormatProgressTest, ShowsDoneTotalRateAndTimeLeft) {
  const std::string line = FormatProgress(
      {.stage = "encode", .done = 5000, .total = 20000, .unit = "tokens"}, 1000.0, 120);
  EXPECT_THAT(line, HasSubstr("encode ["));
  EXPECT_THAT(line, HasSubstr("5,000/20,000 tokens, 1,000/s, 0:15 left"));
}

TEST(FormatProgressTest, SlowRatesHaveDigitsAndSecondsHaveNone) {
  EXPECT_EQ(FormatProgress({.stage = "train", .done = 3, .total = 9, .unit = "steps"}, 0.5, 0),
            "train 3/9 steps, 0.5/s, 0:12 left");
  EXPECT_EQ(FormatProgress({.stage = "train", .done = 3, .total = 9, .unit = "s"}, 1.0, 0),
            "train 3/9 s, 0:06 left");
}

TEST(FormatProgressTest, WithoutTotalThereIsNoBar) {
  const std::string line =
      FormatProgress({.stage = "encode", .done = 5000, .total = 0, .unit = "tokens"}, 0.0, 120);
  EXPECT_EQ(line, "encode 5,000 tokens");
}

TEST(FormatProgressTest, FitsTheTerminal) {
  const ProgressUpdate update{
      .stage = "encode", .done = 123456789, .total = 987654321, .unit = "tokens"};
  for (const int width : {1, 10, 20, 40, 60, 80}) {
    EXPECT_LE(FormatProgress(update, 5.0, width).size(), static_cast<size_t>(width));
  }
}

TEST(FormatProgressTest, MoreThanTheEstimatedTotalIsStillAFullBar) {
  const std::string line =
      FormatProgress({.stage = "encode", .done = 300, .total = 200, .unit = "tokens"}, 10.0, 100);
  EXPECT_THAT(line, HasSubstr("300/300"));
  EXPECT_THAT(line, Not(HasSubstr("left")));
}

TEST(ProgressBarTest, PassesCancellationOn) {
  ProgressBar bar(ProgressBar::Style::kNone);
  EXPECT_TRUE(bar.progress().Report({"encode", 1, 2, "tokens"}).ok());
}

}  // namespace
}  // namespace fovea::cli
