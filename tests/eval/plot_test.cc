#include "eval/plot.h"

#include <fstream>

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Report Facts() {
  Report report{.evaluation = "facts",
                .settings = {},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "tokens", .y = "right", .series = "way"}};
  for (const int64_t tokens : {1024, 4096}) {
    for (const char* way : {"memory, exact", "a \"quoted\" way"}) {
      report.rows.push_back(
          {{"tokens", tokens}, {"way", way}, {"right", RateScore(tokens / 1024, 8)}});
    }
  }
  return report;
}

class PlotTest : public TinySubjectTest {};

TEST_F(PlotTest, RowsBecomeLinesWithIntervals) {
  const auto script = PlotScript(Facts(), "out.svg");
  ASSERT_TRUE(script.ok()) << script.status();
  EXPECT_THAT(*script, AllOf(HasSubstr("set output \"out.svg\""), HasSubstr("logscale x"),
                             HasSubstr("1024 12.5 2.2"), HasSubstr("4096 50 21.5"),
                             HasSubstr("title \"memory, exact\""),
                             HasSubstr("title \"a \\\"quoted\\\" way\"")));
}

TEST_F(PlotTest, TextsHavePlacesOnTheAxis) {
  Report report = Facts();
  report.plot = {.x = "way", .y = "right", .series = "tokens"};
  const auto script = PlotScript(report, "out.svg");
  ASSERT_TRUE(script.ok()) << script.status();
  EXPECT_THAT(*script, AllOf(HasSubstr("\"memory, exact\" 0"), HasSubstr("1 12.5 "),
                             HasSubstr("title \"4096\""), Not(HasSubstr("logscale"))));
  report.plot.y = "F1";
  EXPECT_TRUE(absl::IsInvalidArgument(PlotScript(report, "out.svg").status()));
}

TEST_F(PlotTest, DrawsSvgWhereThereIsGnuplotAndElseSaysHowToGetIt) {
  const std::filesystem::path svg = folder_ / "it's a plot.svg";
  const absl::Status drawn = DrawPlot(Facts(), svg, Progress());
  if (!FindGnuplot().ok()) {
    EXPECT_TRUE(absl::IsFailedPrecondition(drawn)) << drawn;
    EXPECT_THAT(std::string(drawn.message()), HasSubstr("apt-get install gnuplot"));
    return;
  }
  ASSERT_TRUE(drawn.ok()) << drawn;
  std::ifstream file(svg);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_THAT(text, AllOf(HasSubstr("<svg"), HasSubstr("memory, exact"), HasSubstr("</svg>")));
  // Nothing else is left behind.
  size_t n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    n_files += entry.path().filename().native().find("plot") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(n_files, 1u);
  EXPECT_FALSE(DrawPlot(Facts(), folder_ / "none" / "x.svg", Progress()).ok());
}

}  // namespace
}  // namespace fovea::eval
