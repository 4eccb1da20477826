// fovea verify: checks a memory, and repairs what can be made again from the stored text.
#include <cstdio>
#include <memory>
#include <string>

#include "answer/check_memory.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"

namespace fovea::cli {
namespace {

struct VerifyArguments {
  std::string memory;
  bool repair = false;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

absl::StatusOr<memory::VerifyReport> CheckMemory(const VerifyArguments& arguments,
                                                 ProgressBar* bar) {
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  return answer::CheckMemory(*device, {.memory = arguments.memory,
                                       .repair = arguments.repair,
                                       .model = arguments.model.model,
                                       .adapter = arguments.model.adapter,
                                       .progress = bar->progress(),
                                       .warn = [](const std::string& warning) {
                                         std::fprintf(stderr, "fovea: %s\n",
                                                      Printable(warning).c_str());
                                       }});
}

absl::StatusOr<ExitCode> RunVerify(const VerifyArguments& arguments) {
  ProgressBar bar(ProgressBar::ChooseStyle(arguments.output.quiet));
  const absl::StatusOr<memory::VerifyReport> report = CheckMemory(arguments, &bar);
  bar.Clear();
  if (absl::IsCancelled(report.status())) {
    std::fprintf(stderr, "fovea: interrupted; nothing is lost, run the same command again\n");
    return kFailed;
  }
  RETURN_IF_ERROR(report.status());
  RETURN_IF_ERROR(
      WriteOutput(arguments.output.json ? JsonLine(ToJson(*report)) : FormatReport(*report)));
  return report->ok ? kDone : kDamageFound;
}

}  // namespace

void AddVerify(CLI::App& app, Run* run) {
  CLI::App* command =
      app.add_subcommand("verify", "Check every record and file of a memory (exit 3: damage)");
  const auto arguments = std::make_shared<VerifyArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  command->add_flag("--repair", arguments->repair, "Make again what is damaged");
  AddMovedModelOptions(command, &arguments->model);
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea verify --memory notes --repair");
  command->callback([arguments, run] { *run = [arguments] { return RunVerify(*arguments); }; });
}

}  // namespace fovea::cli
