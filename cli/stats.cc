// fovea stats: what a memory holds and how large it is.
#include <memory>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "memory/statistics.h"

namespace fovea::cli {
namespace {

struct StatsArguments {
  std::string memory;
  ComputeOptions compute;
  OutputOptions output;
};

absl::StatusOr<ExitCode> RunStats(const StatsArguments& arguments) {
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kRead));
  ASSIGN_OR_RETURN(const memory::Stats stats, memory::ComputeStats(*memory));
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  const memory::SearchStats search = memory::ComputeSearchStats(*memory, *device);
  if (arguments.output.json) {
    Json json = ToJson(stats, *memory->settings());
    json["faiss"] = search.faiss;
    // What lies on a GPU, where one is asked about.
    if (!device->is_host_memory()) json["search"] = ToJson(search);
    RETURN_IF_ERROR(WriteOutput(JsonLine(json)));
  } else {
    RETURN_IF_ERROR(
        WriteOutput(FormatStats(stats, *memory->settings()) + FormatSearchStats(search)));
  }
  return kDone;
}

}  // namespace

void AddStats(CLI::App& app, Run* run) {
  CLI::App* command =
      app.add_subcommand("stats", "Documents, tokens, bytes and indexes of a memory");
  const auto arguments = std::make_shared<StatsArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  AddDeviceOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea stats --memory notes");
  command->callback([arguments, run] { *run = [arguments] { return RunStats(*arguments); }; });
}

}  // namespace fovea::cli
