#include "cli/help_tree.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_split.h"
#include "base/status.h"

namespace fovea::cli {
namespace {

HelpOption ReadOption(const CLI::Option& option) {
  HelpOption read;
  read.is_positional = option.get_positional();
  read.is_required = option.get_required();
  read.is_repeatable = option.get_items_expected_max() > 1;
  read.description = option.get_description();
  if (read.is_positional) {
    read.names.push_back(option.get_single_name());
  } else {
    for (const std::string& name : option.get_snames()) read.names.push_back(StrCat("-", name));
    for (const std::string& name : option.get_lnames()) read.names.push_back(StrCat("--", name));
  }
  std::vector<std::string> remarks;
  if (option.get_items_expected_max() > 0) {
    // "MODE:{dense,exact}", "N:INT in [1 - 9]": what it is called, then what is checked.
    const std::string type = option.get_type_name();
    const size_t colon = type.find(':');
    read.value = type.substr(0, colon);
    const std::string check = colon == std::string::npos ? "" : type.substr(colon + 1);
    if (check.starts_with('{') && check.ends_with('}')) {
      read.choices = absl::StrSplit(check.substr(1, check.size() - 2), ',');
      remarks.push_back(StrCat("one of ", check.substr(1, check.size() - 2)));
    }
    if (!option.get_default_str().empty()) {
      remarks.push_back(StrCat("default: ", option.get_default_str()));
    }
  }
  if (!option.get_envname().empty()) {
    remarks.push_back(StrCat("environment: ", option.get_envname()));
  }
  if (read.is_required) remarks.emplace_back("required");
  for (const std::string& remark : remarks) {
    read.description += StrCat(read.description.empty() ? "" : " ", "(", remark, ")");
  }
  return read;
}

HelpCommand ReadCommand(const CLI::App& app, std::string_view parent) {
  HelpCommand read;
  read.name = app.get_name();
  read.path = parent.empty() ? read.name : StrCat(parent, " ", read.name);
  read.description = app.get_description();
  read.footer = app.get_footer();
  for (const CLI::Option* option : app.get_options({})) {
    if (!option->get_group().empty()) read.options.push_back(ReadOption(*option));
  }
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) read.commands.push_back(ReadCommand(*command, read.path));
  }
  return read;
}

}  // namespace

HelpCommand ReadHelp(const CLI::App& app) { return ReadCommand(app, ""); }

}  // namespace fovea::cli
