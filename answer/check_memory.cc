#include "answer/check_memory.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "answer/open_memory.h"
#include "memory/upkeep/salvage.h"
#include "memory/versions.h"
#include "model/transformer.h"
#include "model/weights/adapter_base.h"
#include "model_home/model_home.h"

namespace fovea::answer {
namespace {

using memory::VerifyFinding;
using memory::VerifyReport;

// Keys, values and query samples come from the model; everything else does not.
bool NeedsModel(const VerifyReport& report) {
  return std::any_of(report.damaged.begin(), report.damaged.end(), [](const auto& finding) {
    return finding.kind == "block" || finding.kind == "sample";
  });
}

// Puts a new store in the place of the memory's, and adds to *moved the findings that this repairs.
absl::Status MoveToNewStore(const CheckOptions& options, const VerifyReport& report,
                            std::vector<VerifyFinding>* moved) {
  RETURN_IF_ERROR(memory::MoveToNewStore(options.memory, options.progress));
  for (const VerifyFinding& finding : report.damaged) {
    if (finding.kind == "table" || finding.kind == "settings") moved->push_back(finding);
  }
  return absl::OkStatus();
}

// The model that the memory remembers.
absl::StatusOr<std::unique_ptr<model::Transformer>> LoadModel(compute::Device& device,
                                                              const memory::Memory& memory,
                                                              const CheckOptions& options) {
  if (!memory.settings().has_value()) {
    return absl::DataLossError(
        StrCat(options.memory.native(),
               ": its settings are damaged, so that the model which its keys and ",
               "values are of is unknown; ingest the documents into a new memory"));
  }
  ASSIGN_OR_RETURN(const model_home::ModelChoice choice,
                   model_home::RememberedModel(model_home::ModelHome::FromEnvironment(),
                                               *memory.settings(), options.model, options.adapter));
  ASSIGN_OR_RETURN(auto model,
                   model::Transformer::Load(&device, model_home::ToLoadOptions(choice)));
  if (choice.adapter.has_value() && options.warn) {
    const std::string warning =
        model::AdapterBaseWarning(*choice.adapter, choice.model, model->config());
    if (!warning.empty()) options.warn(warning);
  }
  RETURN_IF_ERROR(memory.CheckModel(*model));
  return model;
}

absl::StatusOr<VerifyReport> Check(compute::Device& device, const CheckOptions& options) {
  std::vector<VerifyFinding> repaired;  // before the memory opens
  if (options.repair) {
    ASSIGN_OR_RETURN(const std::string restored, memory::RestoreCurrent(options.memory));
    if (!restored.empty()) repaired.push_back({"current", "", restored});
  }
  const auto open = [&] {
    return OpenMemory(options.memory,
                      options.repair ? storage::OpenMode::kWrite : storage::OpenMode::kRead,
                      /*salvage=*/true);
  };
  ASSIGN_OR_RETURN(auto memory, open());
  memory::VerifyOptions verify;
  verify.progress = options.progress;
  ASSIGN_OR_RETURN(VerifyReport report, memory::Verify(device, memory.get(), verify));
  if (!options.repair) return report;
  if (report.ok && report.notes.empty()) {
    report.repaired = std::move(repaired);
    return report;
  }

  if (report.needs_new_store) {
    memory.reset();
    RETURN_IF_ERROR(MoveToNewStore(options, report, &repaired));
    ASSIGN_OR_RETURN(memory, open());
    ASSIGN_OR_RETURN(report, memory::Verify(device, memory.get(), verify));
  }

  std::unique_ptr<model::Transformer> model;
  if (NeedsModel(report)) {
    ASSIGN_OR_RETURN(model, LoadModel(device, *memory, options));
  }
  verify.repair = true;
  verify.model = model.get();
  ASSIGN_OR_RETURN(report, memory::Verify(device, memory.get(), verify));
  report.repaired.insert(report.repaired.begin(), repaired.begin(), repaired.end());
  return report;
}

}  // namespace

absl::StatusOr<VerifyReport> CheckMemory(compute::Device& device, const CheckOptions& options) {
  absl::StatusOr<VerifyReport> report = Check(device, options);
  if (!absl::IsDataLoss(report.status())) return report;
  VerifyReport unreadable;
  unreadable.ok = false;
  unreadable.damaged.push_back({"memory", "", std::string(report.status().message())});
  return unreadable;
}

}  // namespace fovea::answer
