#include "cli/eval_output.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>

#include "absl/strings/str_format.h"
#include "cli/text_format.h"

namespace fovea::cli {
namespace {

using eval::Cell;
using eval::Score;

std::string JsonName(const std::string& name) {
  std::string key;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) {
      key += static_cast<char>(std::tolower(byte));
    } else if (!key.empty() && key.back() != '_') {
      key += '_';
    }
  }
  return key;
}

double Rounded(double value) { return std::isfinite(value) ? std::round(value * 1e4) / 1e4 : 0.0; }

Json ToJson(const Cell& cell) {
  if (const auto* score = std::get_if<Score>(&cell)) {
    return {{score->kind == Score::Kind::kPercent ? "percent" : "ratio", Rounded(score->value)},
            {"low", Rounded(score->low)},
            {"high", Rounded(score->high)},
            {"n", score->n}};
  }
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* count = std::get_if<int64_t>(&cell)) return *count;
  return Rounded(std::get<double>(cell));
}

Json ToJson(const eval::Row& row) {
  Json object = Json::object();
  for (const auto& [name, cell] : row) object[JsonName(name)] = ToJson(cell);
  return object;
}

std::string FormatCell(const Cell& cell) {
  if (const auto* score = std::get_if<Score>(&cell)) {
    return score->kind == Score::Kind::kPercent
               ? absl::StrFormat("%.1f (%.1f–%.1f)", score->value, score->low, score->high)
               : absl::StrFormat("%.3f (%.3f–%.3f)", score->value, score->low, score->high);
  }
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* count = std::get_if<int64_t>(&cell)) return FormatCount(*count);
  return absl::StrFormat("%.3f", std::get<double>(cell));
}

// Characters, not bytes: what a terminal shows of a table's cells.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string Padded(const std::string& text, size_t width, bool is_left) {
  const std::string spaces(width - std::min(width, Width(text)), ' ');
  return is_left ? text + spaces : spaces + text;
}

}  // namespace

Json ToJson(const eval::Report& report) {
  Json rows = Json::array();
  for (const eval::Row& row : report.rows) rows.push_back(ToJson(row));
  Json hashes = Json::object();
  for (const auto& [name, hash] : report.text_hashes) hashes[name] = hash;
  return {{"evaluation", report.evaluation},
          {"settings", ToJson(report.settings)},
          {"text_hashes", std::move(hashes)},
          {"rows", std::move(rows)}};
}

Json ToJson(const eval::Way& way, const eval::Question& question, const eval::Outcome& outcome) {
  return {{"way", way.name},
          {"question", question.text},
          {"answers", question.answers},
          {"kind", question.kind},
          {"answer", outcome.answer},
          {"f1", Rounded(outcome.f1)},
          {"exact_match", outcome.is_exact},
          {"right", outcome.is_held},
          {"named", way.has_memory ? Json(outcome.is_named) : Json()},
          {"prompt_tokens", outcome.prompt_tokens},
          {"seconds", Rounded(outcome.seconds)}};
}

std::string FormatReport(const eval::Report& report) {
  std::string text = report.evaluation;
  for (const auto& [name, cell] : report.settings) {
    text += StrCat(", ", name, " ", FormatCell(cell));
  }
  text += "\n\n";
  // The columns of the row with most of them come first, in its order.
  std::vector<const eval::Row*> rows;
  for (const eval::Row& row : report.rows) rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const eval::Row* a, const eval::Row* b) { return a->size() > b->size(); });
  std::vector<std::string> names;
  for (const eval::Row* row : rows) {
    for (const auto& [name, cell] : *row) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  std::vector<std::vector<std::string>> lines = {names};
  std::vector<size_t> widths;
  std::vector<bool> is_text(names.size(), false);
  for (const eval::Row& row : report.rows) {
    std::vector<std::string>& line = lines.emplace_back(names.size(), "–");
    for (const auto& [name, cell] : row) {
      const auto column =
          static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
      line[column] = FormatCell(cell);
      if (std::holds_alternative<std::string>(cell)) is_text[column] = true;
    }
  }
  for (size_t i = 0; i < names.size(); ++i) {
    size_t width = 0;
    for (const auto& line : lines) width = std::max(width, Width(line[i]));
    widths.push_back(width);
  }
  for (const auto& line : lines) {
    std::string written;
    for (size_t i = 0; i < line.size(); ++i) {
      written += StrCat(i == 0 ? "" : "  ", Padded(line[i], widths[i], is_text[i]));
    }
    text += written.substr(0, written.find_last_not_of(' ') + 1) + "\n";
  }
  return Printable(text);
}

std::string CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr char kPlain[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:=,+@%";
  std::string command;
  size_t begin = 0;
  while (begin < bytes.size()) {
    const size_t end = std::min(bytes.find('\0', begin), bytes.size());
    const std::string word = bytes.substr(begin, end - begin);
    if (!command.empty()) command += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      command += word;
    } else {
      command += '\'';
      for (const char c : word) command += c == '\'' ? std::string("'\\''") : std::string(1, c);
      command += '\'';
    }
    begin = end + 1;
  }
  return command;
}

}  // namespace fovea::cli
