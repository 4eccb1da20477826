// fovea parity: a fixture of LongLLaMA's reference, run here and compared.
#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "model/parity_fixture.h"

namespace fovea::cli {
namespace {

struct ParityArguments {
  std::string fixture;
  ComputeOptions compute;
};

absl::StatusOr<ExitCode> RunParity(const ParityArguments& arguments) {
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments.compute));
  ASSIGN_OR_RETURN(const auto results, model::RunParityFixture(device.get(), arguments.fixture));
  Json cases = Json::array();
  double max = 0.0;
  bool sizes_equal = true;
  bool overflow_equal = true;
  for (const model::ParityCase& result : results) {
    max = std::max(max, result.max);
    sizes_equal &= result.sizes_equal;
    overflow_equal &= result.overflow_equal;
    cases.push_back({{"name", result.name},
                     {"max", result.max},
                     {"median", result.median},
                     {"p999", result.p999},
                     {"memory_max", result.memory_max},
                     {"sizes_equal", result.sizes_equal},
                     {"overflow_equal", result.overflow_equal}});
  }
  RETURN_IF_ERROR(WriteOutput(JsonLine({{"cases", std::move(cases)},
                                        {"max", max},
                                        {"sizes_equal", sizes_equal},
                                        {"overflow_equal", overflow_equal}})));
  return kDone;
}

}  // namespace

void AddParity(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "parity", "Compare with outputs of LongLLaMA's reference, as one JSON object");
  const auto arguments = std::make_shared<ParityArguments>();
  command
      ->add_option("--fixture", arguments->fixture,
                   "A folder with config.json, weights, cases.json and cases.safetensors")
      ->required()
      ->type_name("DIR");
  // What is compared with float32 is computed so, unless it is asked for otherwise.
  arguments->compute.precision = "float32";
  AddComputeOptions(command, &arguments->compute);
  SetExample(command, "fovea parity --fixture fixtures/base-f32");
  command->callback([arguments, run] { *run = [arguments] { return RunParity(*arguments); }; });
}

}  // namespace fovea::cli
