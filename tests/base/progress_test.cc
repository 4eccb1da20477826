#include "base/progress.h"

#include <vector>

#include "gtest/gtest.h"

namespace fovea {
namespace {

TEST(ProgressTest, ByDefaultReportsNothingAndIsNeverCancelled) {
  const Progress progress;
  EXPECT_TRUE(progress.Report({.stage = "encode", .done = 1}).ok());
  EXPECT_TRUE(progress.CheckCancelled().ok());
}

TEST(ProgressTest, ReportsReachTheCallback) {
  std::vector<ProgressUpdate> updates;
  const Progress progress([&](const ProgressUpdate& update) { updates.push_back(update); },
                          nullptr);
  ASSERT_TRUE(progress.Report({.stage = "encode", .done = 3, .total = 7, .unit = "tokens"}).ok());
  ASSERT_EQ(updates.size(), 1u);
  EXPECT_EQ(updates[0].stage, "encode");
  EXPECT_EQ(updates[0].done, 3);
  EXPECT_EQ(updates[0].total, 7);
}

TEST(ProgressTest, CancellationIsSeenAtTheNextReport) {
  std::atomic<bool> cancelled{false};
  int n_reports = 0;
  const Progress progress([&](const ProgressUpdate&) { ++n_reports; }, &cancelled);
  EXPECT_TRUE(progress.Report({}).ok());
  cancelled = true;
  EXPECT_TRUE(absl::IsCancelled(progress.CheckCancelled()));
  EXPECT_TRUE(absl::IsCancelled(progress.Report({})));
  EXPECT_EQ(n_reports, 2);
}

}  // namespace
}  // namespace fovea
