#include "cli/shell_completion.h"

#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace fovea::cli {
namespace {

// All commands: the program, its commands, and theirs.
void Flatten(const HelpCommand& command, std::vector<const HelpCommand*>* all) {
  all->push_back(&command);
  for (const HelpCommand& one : command.commands) Flatten(one, all);
}

std::vector<const HelpCommand*> AllCommands(const HelpCommand& program) {
  std::vector<const HelpCommand*> all;
  Flatten(program, &all);
  return all;
}

std::vector<std::string> NamesOfCommands(const HelpCommand& command) {
  std::vector<std::string> names;
  for (const HelpCommand& one : command.commands) names.push_back(one.name);
  return names;
}

bool IsFile(const HelpOption& option) {
  for (const std::string_view word : {"FILE", "DIR", "PATH", "FOLDER"}) {
    if (option.value.find(word) != std::string::npos) return true;
  }
  return option.is_positional;
}

}  // namespace

std::string BashCompletion(const HelpCommand& program) {
  std::string cases;    // what a command knows
  std::string choices;  // what its options take
  for (const HelpCommand* command : AllCommands(program)) {
    std::vector<std::string> options;
    std::vector<std::string> valued;
    for (const HelpOption& option : command->options) {
      if (option.is_positional) continue;
      options.insert(options.end(), option.names.begin(), option.names.end());
      if (!option.value.empty()) {
        valued.insert(valued.end(), option.names.begin(), option.names.end());
      }
      if (option.choices.empty()) continue;
      for (const std::string& name : option.names) {
        choices += StrCat("    \"", command->path, " ", name, "\") echo \"",
                          absl::StrJoin(option.choices, " "), "\" ;;\n");
      }
    }
    cases += StrCat("    \"", command->path, "\")\n      commands=\"",
                    absl::StrJoin(NamesOfCommands(*command), " "), "\"\n      options=\"",
                    absl::StrJoin(options, " "), "\"\n      valued=\"", absl::StrJoin(valued, " "),
                    "\"\n      ;;\n");
  }
  return StrCat(R"sh(# Completion of fovea in bash; made by fovea itself.

# Sets commands, options and valued (options that take something) to what a command has.
_fovea_knows() {
  commands="" options="" valued=""
  case "$1" in
)sh",
                cases, R"sh(  esac
}

# What an option of a command takes, where that is one of a few words.
_fovea_choices() {
  case "$1 $2" in
)sh",
                choices, R"sh(  esac
}

_fovea() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="fovea" previous="" word i
  local commands options valued choices
  COMPREPLY=()
  _fovea_knows "$path"
  # The words before the one that is completed name the command, and the option that waits for a
  # value.
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word="${COMP_WORDS[i]}"
    if [[ -n "$previous" ]]; then
      previous=""
    elif [[ "$word" == -* ]]; then
      [[ " $valued " == *" $word "* ]] && previous="$word"
    elif [[ " $commands " == *" $word "* ]]; then
      path+=" $word"
      _fovea_knows "$path"
    fi
  done
  if [[ -n "$previous" ]]; then
    # Where there are no choices the shell completes files.
    choices="$(_fovea_choices "$path" "$previous")"
    [[ -z "$choices" ]] || mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
  elif [[ "$current" == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  elif [[ -n "$commands" ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
  fi
}
complete -o bashdefault -o default -F _fovea fovea
)sh");
}

namespace {

// A text within single quotes, in a specification of _arguments or _describe.
std::string ZshText(std::string_view text) {
  return absl::StrReplaceAll(
      std::string(text),
      {{"\\", "\\\\"}, {"'", "'\\''"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
}

std::string ZshFunction(const HelpCommand& command) {
  return StrCat("_", absl::StrReplaceAll(command.path, {{" ", "_"}, {"-", "_"}}));
}

// What _arguments takes for an option: 'NAME[description]:VALUE:ACTION'.
std::string ZshSpecs(const HelpOption& option) {
  std::string takes;
  if (!option.value.empty()) {
    takes = StrCat(":", ZshText(option.value), ":");
    if (!option.choices.empty()) {
      takes += StrCat("(", absl::StrJoin(option.choices, " "), ")");
    } else if (IsFile(option)) {
      takes += "_files";
    }
  }
  if (option.is_positional) return StrCat(" \\\n    '*", takes.empty() ? "::_files" : takes, "'");
  std::string specs;
  for (const std::string& name : option.names) {
    specs += StrCat(" \\\n    '", option.is_repeatable ? "*" : "", name, "[",
                    ZshText(option.description), "]", takes, "'");
  }
  return specs;
}

}  // namespace

std::string ZshCompletion(const HelpCommand& program) {
  std::string text = "#compdef fovea\n# Completion of fovea in zsh; made by fovea itself.\n";
  for (const HelpCommand* command : AllCommands(program)) {
    std::string specs;
    for (const HelpOption& option : command->options) specs += ZshSpecs(option);
    text += StrCat("\n", ZshFunction(*command), "() {\n");
    if (command->commands.empty()) {
      text += StrCat("  _arguments", specs.empty() ? " '*:file:_files'" : specs, "\n}\n");
      continue;
    }
    std::string names;
    std::string cases;
    for (const HelpCommand& one : command->commands) {
      names += StrCat("        '", one.name, ":", ZshText(one.description), "'\n");
      cases += StrCat("        ", one.name, ") ", ZshFunction(one), " ;;\n");
    }
    text += StrCat("  local curcontext=\"$curcontext\" state line\n  typeset -A opt_args\n",
                   "  _arguments -C", specs, " \\\n    '1: :->command' '*:: :->rest'\n",
                   "  case \"$state\" in\n    command)\n      local -a commands=(\n", names,
                   "      )\n      _describe command commands\n      ;;\n    rest)\n",
                   "      case \"${line[1]}\" in\n", cases, "      esac\n      ;;\n  esac\n}\n");
  }
  return text + "\n_fovea \"$@\"\n";
}

}  // namespace fovea::cli
