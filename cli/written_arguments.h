// Arguments as they were written. Where an option or argument takes several values the parser takes
// "[a, b]" apart, which may be a question or a file's name.
#pragma once

#include <string>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"

namespace fovea::cli {

// As app->parse(argc, argv), which throws a CLI::ParseError, once `app` has all its options.
void ParseAsWritten(CLI::App* app, int argc, const char* const* argv);

// What the parser hands on without reading it: an argument of CLI::App::remaining(), a message.
std::string AsWritten(const std::string& text);

}  // namespace fovea::cli
