// fovea: dispatches to the subcommands, and turns their errors into messages and exit codes.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "cli/usage_errors.h"
#include "cli/written_arguments.h"

namespace {

using fovea::cli::ExitCode;

int PrintError(std::string_view message) {
  std::fprintf(stderr, "fovea: %s\n", fovea::cli::Printable(message).c_str());
  return ExitCode::kFailed;
}

int Main(int argc, char** argv) {
  fovea::cli::InstallSignalHandlers();
  CLI::App app("A language model with a database in place of a long context.", "fovea");
  app.set_version_flag("--version", "fovea " FOVEA_VERSION);
  app.require_subcommand(1);
  app.failure_message(fovea::cli::UsageMessage);
  fovea::cli::Run run;
  fovea::cli::AddIngest(app, &run);
  fovea::cli::AddAsk(app, &run);
  fovea::cli::AddChat(app, &run);
  fovea::cli::AddServe(app, &run);
  fovea::cli::AddDocs(app, &run);
  fovea::cli::AddRebuild(app, &run);
  fovea::cli::AddVerify(app, &run);
  fovea::cli::AddStats(app, &run);
  fovea::cli::AddModel(app, &run);
  fovea::cli::AddTokenize(app, &run);
  fovea::cli::AddParity(app, &run);
  fovea::cli::AddTrain(app, &run);
  fovea::cli::AddEval(app, &run);
  fovea::cli::AddManual(app, &run);
  app.footer(
      "Example:\n"
      "  fovea ingest --memory notes book.txt\n"
      "  fovea ask --memory notes \"Who left the key in the attic?\"");
  try {
    fovea::cli::ParseAsWritten(&app, argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and --version arrive here, too.
    if (app.exit(error, std::cout, std::cerr) != 0) return ExitCode::kWrongUsage;
    return std::cout.flush() ? ExitCode::kDone : ExitCode::kFailed;
  }
  const absl::StatusOr<ExitCode> code = run();
  if (code.ok()) return *code;
  if (absl::IsAborted(code.status()) || absl::IsCancelled(code.status())) {
    // A reader that closed the pipe has seen enough; an interrupt was said to be one already.
    return ExitCode::kFailed;
  }
  std::string message(fovea::ToStd(code.status().message()));
  if (absl::IsDataLoss(code.status()) && message.find("fovea verify") == std::string::npos) {
    message += "; `fovea verify --repair` names what is damaged and repairs what it can";
  }
  PrintError(message);
  const bool is_usage = code.status().GetPayload(fovea::cli::kWrongUsagePayload).has_value();
  return is_usage ? ExitCode::kWrongUsage : ExitCode::kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  if (!fovea::cli::OccupyStandardDescriptors()) return ExitCode::kFailed;
  // What libraries throw where no adapter expects it: out of memory above all.
  try {
    return Main(argc, argv);
  } catch (const std::bad_alloc&) {
    return PrintError("out of memory");
  } catch (const std::exception& error) {
    return PrintError(error.what());
  }
}
