#include "eval/context_share.h"

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class ContextShareTest : public TinySubjectTest {
 protected:
  ContextShareOptions Options() {
    return {.common = {.ways = {}, .tokens = {}, .texts = {WriteBooks(8)}, .seed = 5, .visit = {}},
            .contexts = {1, 2, 8},
            .n_samples = 6,
            .context_tokens = 120,
            .query_tokens = 60};
  }
};

TEST_F(ContextShareTest, AnUntrainedModelTellsNothingApart) {
  const auto report = RunContextShare(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(3 * 2));
  for (const Row& row : report->rows) {
    const double d = Value(row, "contexts");
    EXPECT_EQ(Value(row, "1/d"), 1.0 / d);
    if (d == 1.0) {
      EXPECT_NEAR(Value(row, "r_d"), 100.0, 1e-9);
      EXPECT_EQ(Value(row, "first"), 100.0);
    } else {
      EXPECT_NEAR(Value(row, "r_d"), 100.0 / d, 30.0 / d);
      EXPECT_NE(Value(row, "r_d"), 100.0 / d);
    }
  }
  EXPECT_EQ(Text(report->rows[0], "layer"), "1");
  EXPECT_EQ(Text(report->rows[1], "layer"), "2");
  subject_.folder = folder_ / "others";
  const auto again = RunContextShare(subject_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Written(*report), Written(*again));
}

TEST_F(ContextShareTest, SaysWhatItLacks) {
  ContextShareOptions options = Options();
  options.context_tokens = 1'000'000;
  EXPECT_THAT(std::string(RunContextShare(subject_, options).status().message()),
              HasSubstr("longer ones with --texts"));
  LoadModel(/*with_memory_layers=*/false);
  subject_.model = model_.get();
  EXPECT_THAT(std::string(RunContextShare(subject_, Options()).status().message()),
              HasSubstr("--mem-layers"));
}

}  // namespace
}  // namespace fovea::eval
