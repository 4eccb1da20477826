#include "eval/perplexity.h"

#include <cmath>

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class PerplexityTest : public TinySubjectTest {
 protected:
  PerplexityOptions Options() {
    return {.common = {.ways = {.ways = {}, .modes = {"exact", "dense"}},
                       .tokens = {300, 1000},
                       .texts = {WriteBooks()},
                       .seed = 0,
                       .visit = nullptr},
            .n_books = 3,
            .part_tokens = 200,
            .local_tokens = 100};
  }
};

TEST_F(PerplexityTest, LikelihoodsAreThoseOfOneTokenAtATime) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 150; ++i) ids.push_back(i * 37 % 256);  // more than a piece
  const auto loss = MeanNegativeLogLikelihood(model_.get(), ids, nullptr);
  ASSERT_TRUE(loss.ok()) << loss.status();
  model::LocalContext context;
  std::vector<float> logits;
  double sum = 0.0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    ASSERT_TRUE(model_->Forward({&ids[i], 1}, &context, nullptr, &logits).ok());
    double total = 0.0;
    for (const float logit : logits) total += std::exp(double{logit});
    sum -= std::log(std::exp(double{logits[static_cast<size_t>(ids[i + 1])]}) / total);
  }
  EXPECT_NEAR(*loss, sum / 149.0, 1e-4);
  EXPECT_TRUE(absl::IsInvalidArgument(
      MeanNegativeLogLikelihood(model_.get(), {ids.data(), 1}, nullptr).status()));
}

TEST_F(PerplexityTest, ScopesSayWhatIsSeen) {
  const auto report = RunPerplexity(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(1 + 2 * 3 * 2));
  const double without = Value(report->rows[0], "perplexity");
  EXPECT_GT(without, 1.0);
  const auto row_of = [&](size_t size, size_t seen, size_t mode) -> const Row& {
    return report->rows[1 + size * 6 + seen * 2 + mode];
  };
  for (const size_t size : {0u, 1u}) {
    const double tokens = size == 0 ? 300 : 1000;
    for (const size_t mode : {0u, 1u}) {
      EXPECT_EQ(Text(row_of(size, 0, mode), "memory"), "same book");
      EXPECT_EQ(Value(row_of(size, 0, mode), "tokens"), tokens);
      EXPECT_EQ(Text(row_of(size, 1, mode), "memory"), "other books");
      EXPECT_EQ(Value(row_of(size, 1, mode), "tokens"), 2 * tokens);
      EXPECT_EQ(Text(row_of(size, 2, mode), "memory"), "all books");
      EXPECT_EQ(Value(row_of(size, 2, mode), "tokens"), 3 * tokens);
    }
    // What is seen changes what is foretold, and the ratio is that of the perplexities.
    EXPECT_NE(Value(row_of(size, 0, 0), "perplexity"), without);
    EXPECT_NE(Value(row_of(size, 0, 0), "perplexity"), Value(row_of(size, 1, 0), "perplexity"));
    for (size_t seen = 0; seen < 3; ++seen) {
      const Score& ratio = std::get<Score>(Get(row_of(size, seen, 0), "ratio"));
      EXPECT_NEAR(ratio.value, Value(row_of(size, seen, 0), "perplexity") / without, 1e-9);
      EXPECT_EQ(ratio.n, 3);  // books
      EXPECT_LE(ratio.low, ratio.value);
      EXPECT_GE(ratio.high, ratio.value);
    }
  }
  subject_.folder = folder_ / "others";
  const auto again = RunPerplexity(subject_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Written(*report), Written(*again));
}

TEST_F(PerplexityTest, SaysWhereBooksAreTooFewOrWindowsTooLong) {
  PerplexityOptions options = Options();
  options.n_books = 5;
  EXPECT_THAT(std::string(RunPerplexity(subject_, options).status().message()),
              testing::AllOf(HasSubstr("4 books of 1200 tokens"), HasSubstr("--books")));
  options = Options();
  options.local_tokens = 201;
  EXPECT_TRUE(absl::IsInvalidArgument(RunPerplexity(subject_, options).status()));
}

}  // namespace
}  // namespace fovea::eval
