// fovea train: starts fovea-train, which lies beside this program where LibTorch was found when it
// was built.
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/written_arguments.h"

namespace fovea::cli {
namespace {

constexpr char kProgram[] = "fovea-train";

absl::StatusOr<ExitCode> StartTraining(const std::vector<std::string>& arguments) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path program = self.parent_path() / kProgram;
  if (error || !std::filesystem::exists(program, error)) {
    return absl::UnimplementedError(
        StrCat("this build has no training: there is no ", program,
               "; build with LibTorch, which -DTorch_ROOT=FOLDER names (README, \"Training\")"));
  }
  std::vector<char*> argv = {const_cast<char*>(kProgram)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  // Threads that wait for each other give their processors away: where anything else runs, a step
  // takes many times as long otherwise.
  setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  execv(program.c_str(), argv.data());
  return ErrnoToStatus(errno, "start", program);
}

}  // namespace

void AddTrain(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "train", "Train a model's memory layers on your texts (fovea train --help)");
  // Everything is for the other program.
  command->prefix_command();
  command->set_help_flag();
  command->callback([command, run] {
    std::vector<std::string> arguments = command->remaining();
    for (std::string& argument : arguments) argument = AsWritten(argument);
    *run = [arguments] { return StartTraining(arguments); };
  });
}

}  // namespace fovea::cli
