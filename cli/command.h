// What the subcommands share with main: how one adds itself to the parser, and exit codes.
#pragma once

#include <functional>
#include <string>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "base/status.h"

namespace fovea::cli {

// The contract with scripts.
enum ExitCode : int { kDone = 0, kFailed = 1, kWrongUsage = 2, kDamageFound = 3 };

// On an error that shows only when the command runs, and is one of its arguments: kWrongUsage.
inline constexpr char kWrongUsagePayload[] = "fovea/wrong-usage";

// The subcommand that the arguments chose, ready to run. An error is printed by main and ends with
// kFailed, unless it has the payload above.
using Run = std::function<absl::StatusOr<ExitCode>()>;

// Each adds its subcommand to `app`; when the arguments name it, *run is set to it.
void AddIngest(CLI::App& app, Run* run);
void AddAsk(CLI::App& app, Run* run);
void AddChat(CLI::App& app, Run* run);
void AddDocs(CLI::App& app, Run* run);
void AddRebuild(CLI::App& app, Run* run);
void AddVerify(CLI::App& app, Run* run);
void AddStats(CLI::App& app, Run* run);
void AddModel(CLI::App& app, Run* run);
void AddTokenize(CLI::App& app, Run* run);
void AddParity(CLI::App& app, Run* run);
void AddTrain(CLI::App& app, Run* run);
void AddEval(CLI::App& app, Run* run);
void AddServe(CLI::App& app, Run* run);
// After all others: it writes down what they are.
void AddManual(CLI::App& app, Run* run);

}  // namespace fovea::cli
