// What the parser knows of commands and options, in the form in which manuals and shell completions
// are made from it: so they name what `--help` names.
#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"

namespace fovea::cli {

struct HelpOption {
  std::vector<std::string> names;    // "-h", "--help"; of a positional its name: "QUESTION"
  std::string value;                 // what it takes: "FILE", "N"; "": it is a flag
  std::vector<std::string> choices;  // where it takes one of these alone
  std::string description;           // with its default, its limits and its environment variable
  bool is_positional = false;
  bool is_required = false;
  bool is_repeatable = false;
};

struct HelpCommand {
  std::string name;  // "list" of "fovea docs list"
  std::string path;  // "fovea docs list"
  std::string description;
  std::string footer;  // its example
  std::vector<HelpOption> options;
  std::vector<HelpCommand> commands;
};

// Commands that --help hides are left out.
HelpCommand ReadHelp(const CLI::App& app);

}  // namespace fovea::cli
