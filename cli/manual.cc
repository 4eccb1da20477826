// fovea manual: writes manual pages and shell completions, for packages. Part of the build; --help
// does not name it.
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "cli/command.h"
#include "cli/help_tree.h"
#include "cli/man_page.h"
#include "cli/shell_completion.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

absl::Status WriteIn(const fs::path& folder, const std::string& name, std::string_view text) {
  RETURN_IF_ERROR(CreateDirectories(folder));
  return WriteFileAtomic(folder / name, text);
}

absl::StatusOr<ExitCode> WriteManual(const CLI::App& app, const fs::path& share) {
  const HelpCommand program = ReadHelp(app);
  // "fovea 0.1.0"
  const std::string version = app.version().substr(program.name.size() + 1);
  RETURN_IF_ERROR(WriteIn(share / "man/man1", "fovea.1", ManPage(program, version)));
  for (const HelpCommand& command : program.commands) {
    RETURN_IF_ERROR(
        WriteIn(share / "man/man1", ManPageName(command) + ".1", ManPage(command, version)));
  }
  RETURN_IF_ERROR(WriteIn(share / "bash-completion/completions", "fovea", BashCompletion(program)));
  RETURN_IF_ERROR(WriteIn(share / "zsh/site-functions", "_fovea", ZshCompletion(program)));
  return kDone;
}

}  // namespace

void AddManual(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "manual", "Write manual pages and shell completions into the folders of a share folder");
  command->group("");  // not in --help
  const auto share = std::make_shared<std::string>();
  command->add_option("SHARE", *share, "As /usr/share: man/man1, bash-completion, zsh")->required();
  command->callback(
      [&app, share, run] { *run = [&app, share] { return WriteManual(app, *share); }; });
}

}  // namespace fovea::cli
