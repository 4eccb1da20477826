#include "cli/man_page.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace fovea::cli {
namespace {

// A text as roff prints it: hyphens that can be copied, and no line that begins as a request does.
std::string Escaped(std::string_view text) {
  std::string escaped = absl::StrReplaceAll(
      std::string(text), {{"\\", "\\e"}, {"-", "\\-"}, {"\n.", "\n\\&."}, {"\n'", "\n\\&'"}});
  if (escaped.starts_with('.') || escaped.starts_with('\'')) escaped.insert(0, "\\&");
  return escaped;
}

std::string Upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

std::string OptionEntry(const HelpOption& option) {
  std::string entry = ".TP\n";
  if (option.is_positional) {
    entry += StrCat("\\fI", Escaped(option.names[0]), "\\fR\n");
  } else {
    entry += absl::StrJoin(option.names, ", ", [](std::string* out, const std::string& name) {
      *out += StrCat("\\fB", Escaped(name), "\\fR");
    });
    if (!option.value.empty()) entry += StrCat(" \\fI", Escaped(option.value), "\\fR");
    entry += "\n";
  }
  return entry + Escaped(option.description) + "\n";
}

std::string Synopsis(const HelpCommand& command) {
  std::string synopsis = StrCat(".B ", Escaped(command.path), "\n[\\fIOPTION\\fR]...\n");
  if (!command.commands.empty()) synopsis += "\\fICOMMAND\\fR\n";
  for (const HelpOption& option : command.options) {
    if (!option.is_positional) continue;
    const std::string name = StrCat("\\fI", Escaped(option.names[0]), "\\fR");
    synopsis += StrCat(option.is_required ? name : StrCat("[", name, "]"),
                       option.is_repeatable ? "..." : "", "\n");
  }
  return synopsis;
}

std::string Options(const HelpCommand& command) {
  std::string entries;
  for (const HelpOption& option : command.options) entries += OptionEntry(option);
  return entries;
}

// The example, as it is typed.
std::string Example(const HelpCommand& command) {
  constexpr std::string_view kHeading = "Example:\n";
  std::string_view example = command.footer;
  if (example.starts_with(kHeading)) example.remove_prefix(kHeading.size());
  return example.empty() ? "" : StrCat(".PP\n.nf\n", Escaped(example), "\n.fi\n");
}

}  // namespace

std::string ManPageName(const HelpCommand& command) {
  return absl::StrReplaceAll(command.path, {{" ", "-"}});
}

std::string ManPage(const HelpCommand& command, std::string_view version) {
  const bool is_program = command.path == command.name;
  // No date: the same sources give the same page.
  std::string page = StrCat(".TH ", Upper(ManPageName(command)), " 1 \"\" \"fovea ", version,
                            "\" \"fovea\"\n.SH NAME\n", Escaped(ManPageName(command)), " \\- ",
                            Escaped(command.description), "\n.SH SYNOPSIS\n", Synopsis(command));
  if (!command.options.empty()) page += StrCat(".SH OPTIONS\n", Options(command));
  if (!command.commands.empty()) page += ".SH COMMANDS\n";
  for (const HelpCommand& one : command.commands) {
    if (is_program) {
      page += StrCat(".TP\n\\fB", Escaped(one.path), "\\fR\n", Escaped(one.description),
                     "; see\n.BR ", Escaped(ManPageName(one)), " (1).\n");
      continue;
    }
    page += StrCat(".SS ", Escaped(one.path), "\n", Escaped(one.description), "\n.PP\n",
                   Synopsis(one), Options(one), Example(one));
  }
  if (const std::string example = Example(command); !example.empty()) {
    page += StrCat(".SH EXAMPLES\n", example);
  }
  page +=
      ".SH EXIT STATUS\n0: done; 1: it failed, and a message says why; 2: wrong usage; 3: damage "
      "was "
      "found.\n";
  if (!is_program) page += ".SH SEE ALSO\n.BR fovea (1)\n";
  return page;
}

}  // namespace fovea::cli
