#include "cli/written_arguments.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace fovea::cli {
namespace {

// Stands before values that begin with a bracket until the parser has read them. A control
// character: none of the parser's own signs.
constexpr char kShield = '\x1f';

std::string Shielded(std::string argument) {
  const size_t equals = argument.starts_with("--") ? argument.find('=') : std::string::npos;
  const size_t value = equals == std::string::npos ? 0 : equals + 1;
  if (value < argument.size() && (argument[value] == '[' || argument[value] == kShield)) {
    argument.insert(value, 1, kShield);
  }
  return argument;
}

void UnshieldValues(CLI::App* app) {
  for (CLI::Option* option : app->get_options()) {
    if (option->get_items_expected_max() == 0) continue;  // a flag
    option->transform([](const std::string& value) {
      return value.starts_with(kShield) ? value.substr(1) : value;
    });
  }
  for (CLI::App* command : app->get_subcommands({})) UnshieldValues(command);
}

}  // namespace

void ParseAsWritten(CLI::App* app, int argc, const char* const* argv) {
  UnshieldValues(app);
  std::vector<std::string> shielded(argv, argv + argc);
  std::transform(shielded.begin() + 1, shielded.end(), shielded.begin() + 1, Shielded);
  std::vector<const char*> pointers;
  for (const std::string& argument : shielded) pointers.push_back(argument.c_str());
  app->parse(argc, pointers.data());
}

std::string AsWritten(const std::string& text) {
  std::string written;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kShield && i + 1 < text.size()) ++i;
    written += text[i];
  }
  return written;
}

}  // namespace fovea::cli
