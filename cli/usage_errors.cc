#include "cli/usage_errors.h"

#include <algorithm>
#include <string_view>

#include "base/strings.h"
#include "cli/written_arguments.h"

namespace fovea::cli {
namespace {

// What is wrong with how often `option` was given, or with its value, if that is what `error` says.
std::string WrongCount(const CLI::Option& option, std::string_view error) {
  const std::string name = option.get_name();
  const int most = option.get_items_expected_max();
  if (CLI::ArgumentMismatch::AtMost(name, most, option.count()).what() == error) {
    return StrCat(name, " is given ", option.count(), " times: want it ",
                  most == 1 ? "once" : StrCat("at most ", most, " times"));
  }
  const int least = std::min(option.get_type_size_min(), option.get_items_expected_min());
  if (CLI::ArgumentMismatch::TypedAtLeast(name, least, option.get_type_name()).what() == error) {
    return StrCat(name, " has no value: want one behind it");
  }
  return "";
}

// The same of any option of `app` and of the commands that were named.
std::string WrongCountIn(const CLI::App& app, std::string_view error) {
  for (const CLI::Option* option : app.get_options({})) {
    if (std::string wrong = WrongCount(*option, error); !wrong.empty()) return wrong;
  }
  for (const CLI::App* command : app.get_subcommands()) {
    if (std::string wrong = WrongCountIn(*command, error); !wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace

std::string UsageMessage(const CLI::App* app, const CLI::Error& error) {
  const std::string wrong = WrongCountIn(*app, error.what());
  if (wrong.empty()) return AsWritten(CLI::FailureMessage::simple(app, error));
  return CLI::FailureMessage::simple(
      app, CLI::ArgumentMismatch(wrong, static_cast<CLI::ExitCodes>(error.get_exit_code())));
}

}  // namespace fovea::cli
