// Opens what a command works with: the device, the memory, and the model that the memory remembers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "answer/answerer.h"
#include "answer/open_memory.h"
#include "base/status.h"
#include "cli/options.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"
#include "model_home/model_home.h"

namespace fovea::cli {

using answer::OpenMemory;

// For people, when --threads asks for more than there are processors; else empty.
std::string ThreadsNote(const ComputeOptions& options);

// "cpu", or an error that says what this build lacks. It has no more threads than there are
// processors for; the note is printed.
absl::StatusOr<std::unique_ptr<compute::Device>> CreateDevice(const ComputeOptions& options);

// What `options` name, else FOVEA_MODEL, else the default model.
absl::StatusOr<model_home::ModelChoice> ChooseNewModel(const ModelOptions& options);

// What a user should know of a model and its adapter; empty: nothing.
std::string ModelWarning(const model_home::ModelChoice& choice, const model::Transformer& model);

// To those who asked for quiet, too: a memory without the adapter is another one.
void PrintAdapterWarning(const model_home::ModelChoice& choice);

// Loads with a message that says which files are concerned. Prints the ModelWarning, to those who
// asked for quiet, too.
absl::StatusOr<std::unique_ptr<model::Transformer>> LoadModel(
    compute::Device* device, const model_home::ModelChoice& choice);

// Everything that questions need. Members are destroyed in the right order.
struct Session {
  std::unique_ptr<compute::Device> device;
  std::unique_ptr<memory::Memory> memory;  // null: no memory was named
  std::unique_ptr<model::Transformer> model;
  std::unique_ptr<answer::Answerer> answerer;
  double open_ms = 0.0;            // since the program started
  std::vector<std::string> notes;  // on all answers
};

// `memory` may be empty: the model alone.
absl::StatusOr<Session> OpenSession(const std::string& memory, const ModelOptions& model,
                                    const ComputeOptions& compute);

// Milliseconds since the program started.
double UptimeMs();

// A hint for people on standard error, unless they want quiet.
void PrintHint(const OutputOptions& options, const std::string& hint);
// The same for what an answer could not be made from, and how it ended. `where` ("line 3: ") begins
// each note.
void PrintNotes(const OutputOptions& options, const answer::Answer& answer,
                const std::string& where = "");

}  // namespace fovea::cli
