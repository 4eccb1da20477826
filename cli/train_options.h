// What all training runs take from the command line, and say of themselves.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "train/trainer.h"

namespace fovea::cli {

absl::StatusOr<torch::Device> ParseTrainingDevice(const std::string& text);  // "cpu", "cuda:1"
// "auto": bfloat16 on a GPU, else float32.
absl::StatusOr<torch::Dtype> ParsePrecision(const std::string& text, const torch::Device& device);

// Writes it to a new run's folder; of a run that goes on it is to be what it was. The last step
// before RunTraining, whose options it checks: nothing is written of a run that is refused.
absl::Status KeepConfiguration(const train::TrainOptions& options,
                               const train::BatchSource& batches, const Json& configuration);

// Trains with progress and a line every log_every steps, and prints what came of it; `what` is
// written: "adapter".
absl::StatusOr<ExitCode> RunTraining(train::TrainableModel* model,
                                     const train::BatchSource& batches,
                                     const train::TrainOptions& options,
                                     const train::WriteTrained& write, const std::string& what,
                                     const OutputOptions& output, ProgressBar* bar);

// fovea train dictionary.
void AddTrainDictionary(CLI::App& app, Run* run);

}  // namespace fovea::cli
