// One run of an evaluation: its model, the folder of its memories, and where its results go.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "eval/evaluation.h"

namespace fovea::cli {

// What all evaluations are told.
struct EvalArguments {
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
  std::string folder;  // empty: a temporary one
  int window = 0;
  std::string index;
  std::string plot;
  std::string answers;
  std::vector<std::string> tokens;  // sizes as they were written
  eval::CommonOptions common;
  std::vector<std::filesystem::path> data;  // files that were read
};

// "65536", "64k", "1M": tokens; k is 1,024.
absl::StatusOr<int64_t> ParseTokens(const std::string& text);

// Makes the report; adds the files that it read to arguments->data.
using Evaluate = std::function<absl::StatusOr<eval::Report>(const eval::Subject& subject,
                                                            EvalArguments* arguments)>;

// Loads the model, evaluates, and writes the table, the JSON object, the answers and the plot.
absl::StatusOr<ExitCode> RunEval(const Evaluate& evaluate, EvalArguments* arguments);

}  // namespace fovea::cli
