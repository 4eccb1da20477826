// What is said of arguments that the parser refuses, where its own words leave open what is meant.
#pragma once

#include <string>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"

namespace fovea::cli {

// For CLI::App::failure_message of a program: "--seed is given 2 times: …" where the parser counts
// values ("--seed: At Most 1 required but received 2"), and the like; else the parser's words.
std::string UsageMessage(const CLI::App* app, const CLI::Error& error);

}  // namespace fovea::cli
