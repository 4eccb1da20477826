// Completion of fovea's commands and options in shells, from what `--help` says.
#pragma once

#include <string>

#include "cli/help_tree.h"

namespace fovea::cli {

// For bash: a file that is sourced, or lies in share/bash-completion/completions as "fovea".
std::string BashCompletion(const HelpCommand& program);
// For zsh: a function of the name _fovea in a folder of fpath.
std::string ZshCompletion(const HelpCommand& program);

}  // namespace fovea::cli
