// A training run: its loop, its folder, and how it goes on after it was ended.
//
// The folder: metrics.jsonl (a line every log_every steps), checkpoint (parameters and moments; one
// file, replaced in one step) and, in the end, adapter/. On a CPU a run of a number of steps that
// goes on from its checkpoint gives, bit for bit, what it would have given without an end; on a GPU
// the same but for the order in which gradients of attention are added up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "train/batch_source.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/trainable_model.h"

namespace fovea::train {

struct TrainOptions {
  std::filesystem::path folder;
  // One of them: how long the run is.
  int64_t n_steps = 0;
  double n_seconds = 0.0;
  LearningRate learning_rate;
  OptimizerOptions optimizer;
  ContextSchedule contexts;
  double local_share = 0.1;          // of the steps: without a memory
  double mass_weight = 0.6;          // of the contrastive loss; 0: none
  double distill_weight = 0.0;       // of the distillation; 0: none
  std::vector<int64_t> mass_layers;  // indices among the memory layers
  int64_t log_every = 10;
  double checkpoint_every_s = 60.0;
  int n_batch_threads = 0;  // 0: half of the processors, at most 8
  bool resumes = false;
};

// What is told every log_every steps.
struct TrainReport {
  int64_t step = 0;  // that are done
  double progress = 0.0;
  double seconds = 0.0;  // of this process
  int64_t d = 0;
  int64_t n_targets = 0;      // tokens that the loss is of
  double loss = 0.0;          // of next tokens; 0 where there are no targets
  double accuracy = 0.0;      // share of the targets that are the likeliest token
  double mass_loss = 0.0;     // 0: none
  double distill_loss = 0.0;  // 0: none
  std::vector<double> mass;   // of the passages that were asked for, by mass layer
  std::vector<double> r_d;    // of the own context among the d that were seen, by memory layer
  double gradient_norm = 0.0;
  double learning_rate = 0.0;
  double tokens_per_s = 0.0;  // contexts and sequences, since the last report
  double waited_share = 0.0;  // of that time, for batches
};

struct TrainResult {
  int64_t n_steps = 0;
  double seconds = 0.0;
  double tokens_per_s = 0.0;
  std::filesystem::path written;  // what `write` returned
};

// Writes what was trained into a run's folder, and says where: as an adapter, say.
using WriteTrained = std::function<absl::StatusOr<std::filesystem::path>(
    const TrainableModel& model, const std::filesystem::path& folder)>;

// What Train refuses before it writes anything: InvalidArgument for options of which no run can be
// made, FailedPrecondition for a folder with another run, NotFound for one with none to go on with.
// `batches` may be null, as long as they are not made: then what depends on them is not looked at.
absl::Status CheckRun(const TrainOptions& options, const BatchSource* batches);

// `write` and `on_report` may be empty. Errors: Cancelled (the checkpoint has what was done),
// those of CheckRun, DataLoss for a loss that is no
// number (the last checkpoint stays), and those of files.
absl::StatusOr<TrainResult> Train(TrainableModel* model, const BatchSource& batches,
                                  const TrainOptions& options, const WriteTrained& write,
                                  const Progress& progress,
                                  const std::function<void(const TrainReport&)>& on_report);

}  // namespace fovea::train
