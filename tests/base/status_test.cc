#include "base/status.h"

#include <memory>

#include "gtest/gtest.h"

namespace fovea {
namespace {

absl::StatusOr<std::unique_ptr<int>> Make(int value) {
  if (value < 0) return absl::InvalidArgumentError(StrCat("value ", value, ": want 0 or more"));
  return std::make_unique<int>(value);
}

absl::StatusOr<int> Sum(int a, int b) {
  ASSIGN_OR_RETURN(std::unique_ptr<int> first, Make(a));
  ASSIGN_OR_RETURN(const std::unique_ptr<int> second, Make(b));
  return *first + *second;
}

absl::Status Check(int a, int b, bool* reached_end) {
  RETURN_IF_ERROR(Sum(a, b).status());
  *reached_end = true;
  return absl::OkStatus();
}

TEST(StatusTest, ValuesAreMovedAndErrorsReturned) {
  EXPECT_EQ(*Sum(2, 3), 5);
  EXPECT_EQ(Sum(2, -3).status(), absl::InvalidArgumentError("value -3: want 0 or more"));
  bool reached_end = false;
  EXPECT_FALSE(Check(-1, 0, &reached_end).ok());
  EXPECT_FALSE(reached_end);
  EXPECT_TRUE(Check(1, 0, &reached_end).ok());
  EXPECT_TRUE(reached_end);
}

TEST(StatusTest, AnnotateKeepsTheCodeAndOkStaysOk) {
  EXPECT_EQ(Annotate(absl::NotFoundError("no such file"), "model"),
            absl::NotFoundError("model: no such file"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "model").ok());
}

TEST(StatusDeathTest, CheckNamesTheConditionThatFailed) {
  EXPECT_DEATH(FOVEA_CHECK(1 + 1 == 3), "check failed: 1 \\+ 1 == 3");
}

TEST(StringsTest, StrCatTakesAllKindsOfText) {
  const std::string_view view = "view";
  const std::filesystem::path path = "/some/path";
  EXPECT_EQ(StrCat(view, " ", path, " ", std::string("string"), " ", 42, " ", 1.5),
            "view /some/path string 42 1.5");
}

TEST(StringsTest, ViewsConvertBothWays) {
  const std::string_view view("a\0b", 3);
  EXPECT_EQ(ToStd(ToAbsl(view)), view);
}

}  // namespace
}  // namespace fovea
