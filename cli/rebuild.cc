// fovea rebuild: new indexes, or everything encoded again with another model.
#include "memory/upkeep/rebuild.h"

#include <chrono>
#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "memory/upkeep/reencode.h"

namespace fovea::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RebuildArguments {
  std::string memory;
  std::string index;
  bool reencode = false;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

absl::Status RebuildIndex(const RebuildArguments& arguments, ProgressBar* bar) {
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kWrite));
  ASSIGN_OR_RETURN(const memory::RebuildResult result,
                   memory::Rebuild(*device, memory.get(), arguments.index, bar->progress()));
  bar->Clear();
  const double seconds = SecondsSince(start);
  return WriteOutput(arguments.output.json ? JsonLine(ToJson(result, seconds))
                                           : FormatRebuilt(result, seconds));
}

// The model that is named now; what is not named stays as the memory remembers it, but a new model
// brings its own adapter.
absl::StatusOr<model_home::ModelChoice> ChooseReencoder(const RebuildArguments& arguments) {
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kRead));
  const ModelOptions& options = arguments.model;
  if (options.model.has_value()) return ChooseNewModel(options);
  return model_home::RememberedModel(model_home::ModelHome::FromEnvironment(), *memory->settings(),
                                     std::nullopt, options.adapter_or_layers());
}

absl::Status ReencodeMemory(const RebuildArguments& arguments, ProgressBar* bar) {
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  ASSIGN_OR_RETURN(const model_home::ModelChoice choice, ChooseReencoder(arguments));
  PrintAdapterWarning(choice);
  ASSIGN_OR_RETURN(const auto model, LoadModel(device.get(), choice));
  memory::ReencodeOptions options;
  options.model_name = choice.model_name;
  options.adapter_name = choice.adapter_name;
  options.index_spec = arguments.index;
  options.progress = bar->progress();
  ASSIGN_OR_RETURN(const memory::ReencodeResult result,
                   memory::Reencode(arguments.memory, model.get(), options));
  bar->Clear();
  const double seconds = SecondsSince(start);
  return WriteOutput(arguments.output.json ? JsonLine(ToJson(result, model->fingerprint(), seconds))
                                           : FormatReencoded(result, seconds));
}

absl::StatusOr<ExitCode> RunRebuild(const RebuildArguments& arguments) {
  ProgressBar bar(ProgressBar::ChooseStyle(arguments.output.quiet));
  const absl::Status status =
      arguments.reencode ? ReencodeMemory(arguments, &bar) : RebuildIndex(arguments, &bar);
  bar.Clear();
  if (absl::IsCancelled(status)) {
    std::fprintf(stderr,
                 "fovea: interrupted; the memory answers as before. The same command goes on from "
                 "here.\n");
  }
  RETURN_IF_ERROR(status);
  return kDone;
}

}  // namespace

void AddRebuild(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "rebuild",
      "Build new indexes, or encode everything again, while the memory answers; drops what an "
      "interrupted ingest has left");
  const auto arguments = std::make_shared<RebuildArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  command
      ->add_option(
          "--index", arguments->index,
          "auto, exact, Scan2, Scan4, Scan8, or a FAISS specification (default: the memory's)")
      ->type_name("SPEC");
  CLI::Option* reencode =
      command->add_flag("--reencode", arguments->reencode,
                        "Encode the stored texts again, with --model and --adapter");
  AddModelOptions(command, &arguments->model);
  for (const char* name : {"--model", "--adapter", "--mem-layers"}) {
    command->get_option(name)->needs(reencode);
  }
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea rebuild --memory notes --index IVF1024,SQ8");
  command->callback([arguments, run] { *run = [arguments] { return RunRebuild(*arguments); }; });
}

}  // namespace fovea::cli
