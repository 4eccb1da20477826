#include "train/schedule.h"

#include <gtest/gtest.h>

namespace fovea::train {
namespace {

TEST(ScheduleTest, ContextsGrowAlongARun) {
  const auto schedule = ContextSchedule::Parse("1:0.25,4:0.5,32");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(schedule->At(0.0), 1);
  EXPECT_EQ(schedule->At(0.2499), 1);
  EXPECT_EQ(schedule->At(0.25), 4);
  EXPECT_EQ(schedule->At(0.5), 32);
  EXPECT_EQ(schedule->At(1.0), 32);
  EXPECT_EQ(schedule->largest(), 32);
  EXPECT_EQ(ContextSchedule::Parse("8")->At(0.7), 8);
  for (const char* wrong :
       {"", "0", "1,2", "1:0.5,2:0.4,3", "1:0,2", "1:1.5", "x", "1:y,2", "-1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ContextSchedule::Parse(wrong).status())) << wrong;
  }
}

TEST(ScheduleTest, TheLearningRateWarmsUpAndFalls) {
  const LearningRate rate{.peak = 1.0, .n_warmup = 10, .last_share = 0.1};
  EXPECT_DOUBLE_EQ(rate.At(0, 0.0), 0.1);
  EXPECT_DOUBLE_EQ(rate.At(9, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(rate.At(500, 0.5), 0.5);
  EXPECT_DOUBLE_EQ(rate.At(999, 1.0), 0.1);
}

}  // namespace
}  // namespace fovea::train
