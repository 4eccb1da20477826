#include "train/trainer.h"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "tests/train/tiny_texts.h"
#include "train/adapter_writer.h"
#include "train/batch_maker.h"

namespace fovea::train {
namespace {

using ::testing::HasSubstr;

class TrainerTest : public TinyTextsTest {
 protected:
  void SetUp() override {
    TinyTextsTest::SetUp();
    texts_ = Texts();
    BatchOptions batch;
    batch.n_entries = 4;
    batch.context_tokens = 96;
    batch.query_tokens = 96;
    batch.seed = 11;
    auto batches = BatchMaker::Create(&texts_, writer_.get(), batch);
    ASSERT_TRUE(batches.ok()) << batches.status();
    batches_ = *std::move(batches);
  }
  TrainOptions RunOptions(const std::string& name, int64_t n_steps) const {
    TrainOptions options;
    options.folder = folder_ / name;
    options.n_steps = n_steps;
    options.contexts = *ContextSchedule::Parse("1:0.3,2:0.6,4");
    options.learning_rate.n_warmup = 3;
    options.mass_layers = {0, 1};
    options.log_every = 2;
    options.checkpoint_every_s = 0.0;
    return options;
  }
  absl::StatusOr<TrainResult> Run(TrainableModel* model, const TrainOptions& options,
                                  const Progress& progress = Progress()) {
    const WriteTrained write =
        [](const TrainableModel& trained,
           const std::filesystem::path& folder) -> absl::StatusOr<std::filesystem::path> {
      AdapterDescription description;
      description.window = 96;
      RETURN_IF_ERROR(WriteAdapter(trained, description, folder / "adapter"));
      return folder / "adapter";
    };
    return Train(model, *batches_, options, write, progress, {});
  }
  static std::vector<nlohmann::json> Lines(const std::filesystem::path& path) {
    std::vector<nlohmann::json> lines;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }

  TrainingTexts texts_;
  std::unique_ptr<BatchMaker> batches_;
};

TEST_F(TrainerTest, ARunOfLongLlamasFormLowersItsLoss) {
  BatchOptions batch = batches_->options();
  batch.packings = *ParsePackings("1+1,0+0");
  auto batches = BatchMaker::Create(&texts_, writer_.get(), batch);
  ASSERT_TRUE(batches.ok()) << batches.status();
  batches_ = *std::move(batches);
  const auto model = Load(Options());
  const auto result = Run(model.get(), RunOptions("run", 40));
  ASSERT_TRUE(result.ok()) << result.status();
  const auto lines = Lines(folder_ / "run" / "metrics.jsonl");
  EXPECT_LT(lines.back()["loss"].get<double>(), 0.8 * lines.front()["loss"].get<double>());
  EXPECT_EQ(lines.back()["mass"].size(), 0u);
}

TEST_F(TrainerTest, ARunLowersItsLossAndLeavesAnAdapter) {
  const auto model = Load(Options());
  const auto result = Run(model.get(), RunOptions("run", 100));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->n_steps, 100);
  const auto lines = Lines(folder_ / "run" / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 50u);
  const auto mean = [&](size_t begin) {
    double sum = 0.0;
    for (size_t i = begin; i < begin + 8; ++i) sum += lines[i]["loss"].get<double>() / 8;
    return sum;
  };
  EXPECT_LT(mean(42), 0.8 * mean(0));
  EXPECT_EQ(lines.back()["step"], 100);
  for (const auto& line : lines) {
    EXPECT_GT(line["targets"].get<int>(), 0);
    EXPECT_LE(line["d"].get<int>(), 4);
    for (const auto& r : line["r_d"]) {
      EXPECT_GT(r.get<double>(), 0.0);
      EXPECT_LT(r.get<double>(), 1.0 + 1e-5);
    }
  }
  EXPECT_TRUE(model::Adapter::Load(result->written, checkpoint_->config()).ok());
}

TEST_F(TrainerTest, ARunLearnsFromWhatItSaysOfThePassage) {
  BatchOptions batch = batches_->options();
  batch.teacher_tokens = 400;
  auto batches = BatchMaker::Create(&texts_, writer_.get(), batch);
  ASSERT_TRUE(batches.ok()) << batches.status();
  batches_ = *std::move(batches);
  const auto model = Load(Options());
  TrainOptions options = RunOptions("run", 20);
  options.distill_weight = 1.0;
  const auto result = Run(model.get(), options);
  ASSERT_TRUE(result.ok()) << result.status();
  double sum = 0.0;
  for (const auto& line : Lines(folder_ / "run" / "metrics.jsonl")) {
    sum += line["distill_loss"].get<double>();
  }
  EXPECT_GT(sum, 0.0);
}

// Interrupted at any step, a run ends where it would have ended.
TEST_F(TrainerTest, ARunResumesBitForBit) {
  const auto whole = Load(Options());
  ASSERT_TRUE(Run(whole.get(), RunOptions("whole", 12)).ok());
  for (const int64_t stop_at : {1, 5, 8}) {
    std::atomic<bool> cancelled = false;
    const Progress progress(
        [&](const ProgressUpdate& update) { cancelled = update.done >= stop_at; }, &cancelled);
    const std::string name = "cut" + std::to_string(stop_at);
    const auto first = Load(Options());
    EXPECT_TRUE(absl::IsCancelled(Run(first.get(), RunOptions(name, 12), progress).status()));
    // A folder with a run is not begun anew by mistake.
    EXPECT_TRUE(absl::IsFailedPrecondition(Run(first.get(), RunOptions(name, 12)).status()));
    const auto second = Load(Options());
    TrainOptions options = RunOptions(name, 12);
    options.resumes = true;
    const auto result = Run(second.get(), options);
    ASSERT_TRUE(result.ok()) << result.status();
    for (size_t i = 0; i < whole->parameters().size(); ++i) {
      EXPECT_TRUE(torch::equal(whole->parameters()[i].value, second->parameters()[i].value))
          << whole->parameters()[i].name;
    }
    EXPECT_EQ(*ReadFile(folder_ / name / "adapter" / "adapter_model.safetensors"),
              *ReadFile(folder_ / "whole" / "adapter" / "adapter_model.safetensors"));
  }
}

TEST_F(TrainerTest, ALossThatIsNoNumberEndsTheRunAndKeepsTheCheckpoint) {
  const auto model = Load(Options());
  TrainOptions options = RunOptions("run", 4);
  ASSERT_TRUE(Run(model.get(), options).ok());
  const std::string kept = *ReadFile(folder_ / "run" / "checkpoint");
  options.n_steps = 8;
  options.resumes = true;
  options.learning_rate.peak = std::numeric_limits<double>::infinity();
  const absl::Status status = Run(Load(Options()).get(), options).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a number"));
  EXPECT_EQ(*ReadFile(folder_ / "run" / "checkpoint"), kept);
}

TEST_F(TrainerTest, RefusesWhatCannotBeRun) {
  const auto model = Load(Options());
  TrainOptions options = RunOptions("run", 4);
  options.contexts = *ContextSchedule::Parse("5");
  EXPECT_TRUE(absl::IsInvalidArgument(Run(model.get(), options).status()));
  options = RunOptions("run", 0);
  EXPECT_TRUE(absl::IsInvalidArgument(Run(model.get(), options).status()));
  options = RunOptions("run", 4);
  options.resumes = true;
  EXPECT_TRUE(absl::IsNotFound(Run(model.get(), options).status()));
  EXPECT_FALSE(std::filesystem::exists(options.folder));  // nothing is written of what is refused
  std::filesystem::create_directories(options.folder);
  std::ofstream(options.folder / "checkpoint") << "half a checkpoint";
  EXPECT_TRUE(absl::IsDataLoss(Run(model.get(), options).status()));
}

TEST_F(TrainerTest, WhatIsRefusedIsKnownBeforeTheRun) {
  TrainOptions options = RunOptions("run", 4);
  EXPECT_TRUE(CheckRun(options, batches_.get()).ok());
  options.contexts = *ContextSchedule::Parse("5");
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRun(options, batches_.get())));
  EXPECT_TRUE(CheckRun(options, nullptr).ok());  // as long as there are no batches
  options = RunOptions("run", 4);
  options.n_seconds = 1.0;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckRun(options, nullptr)));
  options.n_steps = 0;
  EXPECT_TRUE(CheckRun(options, batches_.get()).ok());
  options.resumes = true;
  EXPECT_TRUE(absl::IsNotFound(CheckRun(options, batches_.get())));
  EXPECT_FALSE(std::filesystem::exists(options.folder));
  std::filesystem::create_directories(options.folder);
  std::ofstream(options.folder / "checkpoint") << "of another run";
  EXPECT_TRUE(CheckRun(options, batches_.get()).ok());
  options.resumes = false;
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckRun(options, batches_.get())));
}

}  // namespace
}  // namespace fovea::train
