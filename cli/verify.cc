// fovea verify: checks a memory, and repairs what can be made again from the stored text.
#include "memory/upkeep/verify.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "memory/upkeep/salvage.h"
#include "memory/versions.h"

namespace fovea::cli {
namespace {

struct VerifyArguments {
  std::string memory;
  bool repair = false;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

// Keys, values and query samples come from the model; everything else does not.
bool NeedsModel(const memory::VerifyReport& report) {
  return std::any_of(report.damaged.begin(), report.damaged.end(), [](const auto& finding) {
    return finding.kind == "block" || finding.kind == "sample";
  });
}

// Puts a new store in the place of the memory's, and adds to *moved the findings that this repairs.
absl::Status MoveToNewStore(const std::string& folder, const memory::VerifyReport& report,
                            const Progress& progress, std::vector<memory::VerifyFinding>* moved) {
  RETURN_IF_ERROR(memory::MoveToNewStore(folder, progress));
  for (const memory::VerifyFinding& finding : report.damaged) {
    if (finding.kind == "table" || finding.kind == "settings") moved->push_back(finding);
  }
  return absl::OkStatus();
}

absl::StatusOr<memory::VerifyReport> CheckMemory(const VerifyArguments& arguments,
                                                 ProgressBar* bar) {
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  std::vector<memory::VerifyFinding> repaired;  // before the memory opens
  if (arguments.repair) {
    ASSIGN_OR_RETURN(const std::string restored, memory::RestoreCurrent(arguments.memory));
    if (!restored.empty()) repaired.push_back({"current", "", restored});
  }
  const auto open = [&] {
    return OpenMemory(arguments.memory,
                      arguments.repair ? storage::OpenMode::kWrite : storage::OpenMode::kRead,
                      /*salvage=*/true);
  };
  ASSIGN_OR_RETURN(auto memory, open());
  memory::VerifyOptions options;
  options.progress = bar->progress();
  ASSIGN_OR_RETURN(memory::VerifyReport report, memory::Verify(*device, memory.get(), options));
  if (!arguments.repair) return report;
  if (report.ok && report.notes.empty()) {
    report.repaired = std::move(repaired);
    return report;
  }

  if (report.needs_new_store) {
    memory.reset();
    RETURN_IF_ERROR(MoveToNewStore(arguments.memory, report, bar->progress(), &repaired));
    ASSIGN_OR_RETURN(memory, open());
    ASSIGN_OR_RETURN(report, memory::Verify(*device, memory.get(), options));
  }

  std::unique_ptr<model::Transformer> model;
  if (NeedsModel(report)) {
    if (!memory->settings().has_value()) {
      return absl::DataLossError(StrCat(
          arguments.memory, ": its settings are damaged, so that the model which its keys and ",
          "values are of is unknown; ingest the documents into a new memory"));
    }
    ASSIGN_OR_RETURN(
        const model_home::ModelChoice choice,
        model_home::RememberedModel(model_home::ModelHome::FromEnvironment(), *memory->settings(),
                                    arguments.model.model, arguments.model.adapter));
    ASSIGN_OR_RETURN(model, LoadModel(device.get(), choice));
    RETURN_IF_ERROR(memory->CheckModel(*model));
  }
  options.repair = true;
  options.model = model.get();
  ASSIGN_OR_RETURN(report, memory::Verify(*device, memory.get(), options));
  report.repaired.insert(report.repaired.begin(), repaired.begin(), repaired.end());
  return report;
}

absl::StatusOr<ExitCode> RunVerify(const VerifyArguments& arguments) {
  ProgressBar bar(ProgressBar::ChooseStyle(arguments.output.quiet));
  absl::StatusOr<memory::VerifyReport> report = CheckMemory(arguments, &bar);
  bar.Clear();
  if (absl::IsCancelled(report.status())) {
    std::fprintf(stderr, "fovea: interrupted; nothing is lost, run the same command again\n");
    return kFailed;
  }
  if (absl::IsDataLoss(report.status())) {
    // So damaged that it does not open: that is a finding, too.
    memory::VerifyReport unreadable;
    unreadable.ok = false;
    unreadable.damaged.push_back({"memory", "", std::string(report.status().message())});
    report = std::move(unreadable);
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
