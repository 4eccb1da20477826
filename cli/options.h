// Options that several subcommands have, added to the parser in one place so that they are called
// and explained alike everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "answer/request.h"

namespace fovea::cli {

struct OutputOptions {
  bool json = false;
  bool quiet = false;
};
void AddOutputOptions(CLI::App* command, OutputOptions* options);

// --memory, from FOVEA_MEMORY where it is not given.
CLI::Option* AddMemoryOption(CLI::App* command, std::string* memory);

struct ComputeOptions {
  std::string device = "cpu";
  std::optional<uint64_t> gpu_memory_bytes;  // that a memory may take; unset: what is free
  int threads = 0;                           // 0: all processors
  std::string precision = "auto";
};
void AddComputeOptions(CLI::App* command, ComputeOptions* options);
// --device and --gpu-memory alone.
void AddDeviceOptions(CLI::App* command, ComputeOptions* options);

struct ModelOptions {
  std::optional<std::string> model;
  std::optional<std::string> adapter;
  std::string mem_layers;  // "9,15,21"
  // --adapter, or what --mem-layers means as one.
  std::optional<std::string> adapter_or_layers() const;
};
void AddModelOptions(CLI::App* command, ModelOptions* options);
// For commands on a memory that remembers its model.
void AddMovedModelOptions(CLI::App* command, ModelOptions* options);

// Everything that `ask` and `chat` share.
struct QuestionOptions {
  std::string mode;  // "": the memory's own
  std::string reread_by;
  std::string reread_memory;
  int reread = -1;
  bool no_memory = false;
  std::optional<std::string> system;
  answer::AskOptions ask;
};
void AddQuestionOptions(CLI::App* command, QuestionOptions* options);
// A request that lacks its question (WithQuestion).
absl::StatusOr<answer::Request> ToRequest(const QuestionOptions& options);
answer::Request WithQuestion(const answer::Request& request, const std::string& question);

// A repeated option takes one value each time, so that what follows is not swallowed.
CLI::Option* AddRepeatedOption(CLI::App* command, const std::string& name,
                               std::vector<std::string>* values, const std::string& description);

// The example that `--help` ends with.
void SetExample(CLI::App* command, const std::string& example);

}  // namespace fovea::cli
