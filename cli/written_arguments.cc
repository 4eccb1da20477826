#include "cli/written_arguments.h"

#include <string_view>
#include <vector>

#include "absl/strings/str_replace.h"

namespace fovea::cli {
namespace {

// Stands before arguments that begin with a bracket until the parser has read them: control
// characters that nobody writes in this order.
constexpr std::string_view kShield = "\x1f\x1e\x1d";

void UnshieldValues(CLI::App* app) {
  for (CLI::Option* option : app->get_options()) {
    if (option->get_items_expected_max() == 0) continue;  // a flag
    option->transform([](const std::string& value) {
      return value.starts_with(kShield) ? value.substr(kShield.size()) : value;
    });
  }
  for (CLI::App* command : app->get_subcommands({})) UnshieldValues(command);
}

}  // namespace

void ParseAsWritten(CLI::App* app, int argc, const char* const* argv) {
  UnshieldValues(app);
  std::vector<std::string> shielded(argv, argv + argc);
  for (std::string& argument : shielded) {
    if (argument.starts_with('[')) argument.insert(0, kShield);
  }
  std::vector<const char*> pointers;
  pointers.reserve(shielded.size());
  for (const std::string& argument : shielded) pointers.push_back(argument.c_str());
  app->parse(argc, pointers.data());
}

std::string AsWritten(const std::string& text) {
  return absl::StrReplaceAll(text, {{{kShield.data(), kShield.size()}, ""}});
}

}  // namespace fovea::cli
