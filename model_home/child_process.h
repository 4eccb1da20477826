// Runs another program without a shell.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::model_home {

struct ChildResult {
  int exit_status = 0;  // 128 + the signal's number when a signal ended it, as shells say
  std::string output;   // the last kilobytes of its standard output and error, mixed
};

// Runs `arguments[0]`, looked up in PATH, with an empty standard input and these variables set
// beside this process's own, and waits for its end. `poll` is called a few times a second; once it
// returns an error the child is ended and the error returned. NotFound: no such program.
absl::StatusOr<ChildResult> RunChild(
    const std::vector<std::string>& arguments,
    const std::vector<std::pair<std::string, std::string>>& variables,
    absl::FunctionRef<absl::Status()> poll);

}  // namespace fovea::model_home
