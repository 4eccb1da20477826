#include "cli/session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/cord.h"
#include "base/processors.h"
#include "cli/command.h"
#include "cli/text_format.h"
#include "model/weights/adapter_base.h"

namespace fovea::cli {
namespace {

using Clock = std::chrono::steady_clock;
const Clock::time_point kStartedAt = Clock::now();

}  // namespace

std::string ThreadsNote(const ComputeOptions& options) {
  const int n_processors = NumProcessors();
  if (options.threads <= n_processors) return "";
  return StrCat("--threads ", options.threads, ": more than the ", n_processors,
                n_processors == 1 ? " processor" : " processors",
                " that this process may use: it works with ", n_processors);
}

absl::StatusOr<std::unique_ptr<compute::Device>> CreateDevice(const ComputeOptions& options) {
  const std::string note = ThreadsNote(options);
  if (!note.empty()) std::fprintf(stderr, "fovea: %s\n", note.c_str());
  absl::StatusOr<std::unique_ptr<compute::Device>> device = compute::Device::Create(
      options.device, std::min(options.threads, NumProcessors()), options.precision);
  if (!device.ok()) {
    absl::Status status = device.status();
    const std::string named = StrCat("device '", options.device, "'");
    if (ToStd(status.message()).find(named) == std::string_view::npos) {
      status = Annotate(status, StrCat("--device ", options.device));
    }
    // A precision that this kind of device does not have.
    if (absl::IsInvalidArgument(status)) status.SetPayload(kWrongUsagePayload, absl::Cord());
    return status;
  }
  if (options.gpu_memory_bytes.has_value() && (*device)->is_host_memory()) {
    absl::Status status = absl::InvalidArgumentError(
        StrCat("--gpu-memory: the device '", options.device,
               "' has no memory of its own: leave it out, or name a GPU (--device cuda)"));
    status.SetPayload(kWrongUsagePayload, absl::Cord());
    return status;
  }
  (*device)->set_entry_limit_bytes(options.gpu_memory_bytes);
  return device;
}

absl::StatusOr<model_home::ModelChoice> ChooseNewModel(const ModelOptions& options) {
  return model_home::ChooseModel(model_home::ModelHome::FromEnvironment(),
                                 options.model.value_or(model_home::DefaultModel()),
                                 options.adapter_or_layers());
}

std::string ModelWarning(const model_home::ModelChoice& choice, const model::Transformer& model) {
  if (!choice.adapter.has_value()) return "";
  return Printable(model::AdapterBaseWarning(*choice.adapter, choice.model, model.config()));
}

void PrintAdapterWarning(const model_home::ModelChoice& choice) {
  if (choice.adapter_warning.empty()) return;
  std::fprintf(stderr, "fovea: %s\n", Printable(choice.adapter_warning).c_str());
}

absl::StatusOr<std::unique_ptr<model::Transformer>> LoadModel(
    compute::Device* device, const model_home::ModelChoice& choice) {
  ASSIGN_OR_RETURN(std::unique_ptr<model::Transformer> model,
                   model::Transformer::Load(device, model_home::ToLoadOptions(choice)));
  const std::string warning = ModelWarning(choice, *model);
  if (!warning.empty()) std::fprintf(stderr, "fovea: %s\n", warning.c_str());
  return model;
}

absl::StatusOr<Session> OpenSession(const std::string& memory, const ModelOptions& model,
                                    const ComputeOptions& compute) {
  Session session;
  ASSIGN_OR_RETURN(session.device, CreateDevice(compute));
  const std::string threads_note = ThreadsNote(compute);
  if (!threads_note.empty()) session.notes.push_back(threads_note);
  model_home::ModelChoice choice;
  if (memory.empty()) {
    ASSIGN_OR_RETURN(choice, ChooseNewModel(model));
  } else {
    ASSIGN_OR_RETURN(session.memory, OpenMemory(memory, storage::OpenMode::kRead));
    ASSIGN_OR_RETURN(choice, model_home::RememberedModel(model_home::ModelHome::FromEnvironment(),
                                                         *session.memory->settings(), model.model,
                                                         model.adapter));
  }
  ASSIGN_OR_RETURN(session.model, LoadModel(session.device.get(), choice));
  const std::string warning = ModelWarning(choice, *session.model);
  if (!warning.empty()) session.notes.push_back(warning);
  ASSIGN_OR_RETURN(
      session.answerer,
      answer::Answerer::Create(session.device.get(), session.model.get(), session.memory.get()));
  session.open_ms = UptimeMs();
  return session;
}

double UptimeMs() {
  return std::chrono::duration<double, std::milli>(Clock::now() - kStartedAt).count();
}

void PrintHint(const OutputOptions& options, const std::string& hint) {
  if (!options.quiet && !hint.empty()) std::fprintf(stderr, "fovea: %s\n", hint.c_str());
}

void PrintNotes(const OutputOptions& options, const answer::Answer& answer,
                const std::string& where) {
  if (options.quiet) return;
  std::vector<std::string> notes = answer.notes;
  if (answer.finish_reason == "repetition") {
    notes.emplace_back("the answer began to repeat itself and was ended");
  }
  for (const std::string& note : notes) {
    std::fprintf(stderr, "fovea: %s%s\n", where.c_str(), Printable(note).c_str());
  }
}

}  // namespace fovea::cli
