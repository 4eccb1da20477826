// Manual pages, for man(1), from what `--help` says.
#pragma once

#include <string>
#include <string_view>

#include "cli/help_tree.h"

namespace fovea::cli {

// The page of a command, in roff with the macros of man(7). One that has commands of its own below
// the program's name ("fovea docs") describes them on its page; the program's page names its
// commands and says where theirs are.
std::string ManPage(const HelpCommand& command, std::string_view version);

// "fovea-docs" of "fovea docs": the name of the page.
std::string ManPageName(const HelpCommand& command);

}  // namespace fovea::cli
