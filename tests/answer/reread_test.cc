#include "answer/reread.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::answer {
namespace {

using ::testing::HasSubstr;

model::MemoryConfig Trained(bool trained) {
  model::MemoryConfig config;
  config.mem_layers = {1};
  config.trained = trained;
  return config;
}

// A model of about so many parameters.
model::ModelConfig OfSize(int64_t n_parameters) {
  model::ModelConfig config;
  config.hidden_size = 1;
  config.vocab_size = n_parameters;
  config.tie_word_embeddings = true;
  return config;
}

RereadPlan Plan(const AskOptions& options, bool trained, bool attends = true,
                int64_t n_parameters = 135'000'000) {
  const auto plan = PlanReread(options, OfSize(n_parameters), Trained(trained), attends);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.value_or(RereadPlan());
}

TEST(RereadPlanTest, AnUntrainedModelIsGivenPassagesByWords) {
  const RereadPlan plan = Plan({}, /*trained=*/false);
  EXPECT_GE(plan.n_passages, 1);
  EXPECT_EQ(plan.by, RereadBy::kBm25);
}

TEST(RereadPlanTest, AnAdapterSaysByWhatPassagesAreFound) {
  model::MemoryConfig memory = Trained(true);
  memory.rereads_by_both = true;
  const auto by = [&](const AskOptions& options, bool attends) {
    const auto plan = PlanReread(options, OfSize(135'000'000), memory, attends);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.value_or(RereadPlan()).by;
  };
  EXPECT_EQ(by({}, /*attends=*/true), RereadBy::kBoth);
  EXPECT_EQ(by({}, /*attends=*/false), RereadBy::kBm25);
  AskOptions asked;
  asked.reread_by = RereadBy::kBm25;
  EXPECT_EQ(by(asked, /*attends=*/true), RereadBy::kBm25);
}

TEST(RereadPlanTest, LargerModelsReadMore) {
  EXPECT_EQ(Plan({}, /*trained=*/false, true, 135'000'000).n_passages, 1);
  EXPECT_EQ(Plan({}, /*trained=*/false, true, 494'000'000).n_passages, 3);
  EXPECT_EQ(Plan({}, /*trained=*/true, true, 1'500'000'000).n_passages, 3);
}

TEST(RereadPlanTest, AModelThatDoesNotAttendIsNeverAskedForItsAttention) {
  EXPECT_EQ(Plan({}, /*trained=*/true, /*attends=*/false).by, RereadBy::kBm25);
}

TEST(RereadPlanTest, RawTextAndClosedBooksAreLeftAlone) {
  AskOptions raw;
  raw.raw = true;
  EXPECT_EQ(Plan(raw, true).n_passages, 0);
  AskOptions closed;
  closed.use_memory = false;
  EXPECT_EQ(Plan(closed, true, false).n_passages, 0);
}

TEST(RereadPlanTest, WhatIsAskedForWins) {
  AskOptions options;
  options.reread = 3;
  options.reread_by = RereadBy::kAttention;
  options.raw = true;
  const RereadPlan plan = Plan(options, false);
  EXPECT_EQ(plan.n_passages, 3);
  EXPECT_EQ(plan.by, RereadBy::kAttention);
}

TEST(RereadPlanTest, ZeroTurnsItOff) {
  AskOptions options;
  options.reread = 0;
  options.reread_by = RereadBy::kBoth;
  EXPECT_EQ(Plan(options, true, false).n_passages, 0);
}

TEST(RereadPlanTest, AttentionWithoutMemoryIsRefused) {
  AskOptions options;
  options.use_memory = false;
  options.reread = 1;
  options.reread_by = RereadBy::kBoth;
  const auto plan = PlanReread(options, OfSize(135'000'000), Trained(true), /*attends=*/false);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("which is off"));
}

TEST(RereadPlanTest, NegativeNumbersAreRefused) {
  AskOptions options;
  options.reread = -1;
  EXPECT_EQ(PlanReread(options, OfSize(135'000'000), Trained(true), true).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RereadByTest, NamesAreParsedBack) {
  for (RereadBy by : {RereadBy::kAttention, RereadBy::kBm25, RereadBy::kBoth}) {
    const auto parsed = ParseRereadBy(RereadByName(by));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, by);
  }
  EXPECT_THAT(std::string(ParseRereadBy("luck").status().message()),
              HasSubstr("attention, bm25 or both"));
}

}  // namespace
}  // namespace fovea::answer
