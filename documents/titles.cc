#include "documents/titles.h"

#include <algorithm>

#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr std::string_view kSpaces = " \t\r";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

// Takes the first line, without its end, from *text.
std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  text->remove_prefix(end == std::string_view::npos ? text->size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

// "title: X" in any case → X.
std::string_view TitleField(std::string_view line) {
  constexpr std::string_view kField = "title:";
  if (line.size() < kField.size()) return {};
  for (size_t i = 0; i < kField.size(); ++i) {
    if ((line[i] | 0x20) != kField[i] && line[i] != kField[i]) return {};
  }
  return Trim(line.substr(kField.size()));
}

std::string_view Unquote(std::string_view text) {
  if (text.size() >= 2 && text.front() == text.back() &&
      (text.front() == '"' || text.front() == '\'')) {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

// "## X ##" → X; empty for anything else.
std::string_view HashHeading(std::string_view line) {
  const size_t level = std::min(line.find_first_not_of('#'), line.size());
  if (level == 0 || level > 6 || level == line.size()) return {};
  if (line[level] != ' ' && line[level] != '\t') return {};
  std::string_view text = Trim(line.substr(level));
  // Closing marks count only after a space: "# C#" keeps its own.
  const size_t last = text.find_last_not_of('#');
  if (last == std::string_view::npos) return {};
  if (last + 1 < text.size() && (text[last] == ' ' || text[last] == '\t')) {
    text = Trim(text.substr(0, last));
  }
  return text;
}

bool IsUnderline(std::string_view line) {
  const std::string_view marks = Trim(line);
  return marks.size() >= 2 && (marks.find_first_not_of('=') == std::string_view::npos ||
                               marks.find_first_not_of('-') == std::string_view::npos);
}

}  // namespace

std::string PlainTextTitle(std::string_view head) {
  for (int i = 0; i < 40 && !head.empty(); ++i) {
    const std::string_view title = TitleField(TakeLine(&head));
    if (!title.empty()) return OneLine(title, kMaxTitleBytes);
  }
  return "";
}

std::string MarkdownTitle(std::string_view head) {
  std::string_view rest = head;
  if (TakeLine(&rest) == "---") {
    std::string_view title;
    std::string_view matter = rest;
    while (!matter.empty()) {
      const std::string_view line = TakeLine(&matter);
      if (line == "---" || line == "...") {
        if (!title.empty()) return OneLine(title, kMaxTitleBytes);
        head = matter;
        break;
      }
      if (title.empty()) title = Unquote(TitleField(line));
    }
  }
  std::string_view fence;     // of the code block that we are in
  std::string_view previous;  // the line before, when an underline may make it a heading
  while (!head.empty()) {
    const std::string_view line = TakeLine(&head);
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    const std::string_view text = Trim(line);
    if (!fence.empty()) {
      if (text.starts_with(fence)) fence = {};
      continue;
    }
    if (indent >= 4 || text.empty()) {  // indented code, or the end of a paragraph
      previous = {};
      continue;
    }
    if (text.starts_with("```") || text.starts_with("~~~")) {
      fence = text.substr(0, 3);
      previous = {};
      continue;
    }
    const std::string_view heading = HashHeading(text);
    if (!heading.empty()) return OneLine(heading, kMaxTitleBytes);
    if (!previous.empty() && IsUnderline(line)) return OneLine(previous, kMaxTitleBytes);
    previous = text;
  }
  return "";
}

std::string FileTitle(const std::filesystem::path& path) {
  return OneLine(path.stem().native(), kMaxTitleBytes);
}

std::string FileNameTitle(const std::filesystem::path& path) {
  return OneLine(path.filename().native(), kMaxTitleBytes);
}

}  // namespace fovea::documents
