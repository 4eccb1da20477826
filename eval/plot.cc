#include "eval/plot.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/strings.h"
#include "model_home/child_process.h"

namespace fovea::eval {
namespace {

constexpr char kGnuplot[] = "gnuplot";

const Cell* Find(const Row& row, const std::string& name) {
  const auto found =
      std::find_if(row.begin(), row.end(), [&](const auto& cell) { return cell.first == name; });
  return found == row.end() ? nullptr : &found->second;
}

// Value, low and high.
struct Point {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
};
std::optional<Point> ToPoint(const Cell* cell) {
  if (cell == nullptr) return std::nullopt;
  if (const auto* score = std::get_if<Score>(cell)) {
    return Point{score->value, score->low, score->high};
  }
  if (const auto* number = std::get_if<double>(cell)) return Point{*number, *number, *number};
  if (const auto* count = std::get_if<int64_t>(cell)) {
    const auto value = static_cast<double>(*count);
    return Point{value, value, value};
  }
  return std::nullopt;
}

std::string ToText(const Cell* cell) {
  if (cell == nullptr) return "";
  if (const auto* text = std::get_if<std::string>(cell)) return *text;
  const std::optional<Point> point = ToPoint(cell);
  return absl::StrFormat("%g", point->value);
}

// A text between quotes, in which a backslash and a quote mean themselves.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return quoted + "\"";
}

template <typename T>
size_t IndexIn(std::vector<T>* known, const T& value) {
  const auto found = std::find(known->begin(), known->end(), value);
  if (found != known->end()) return static_cast<size_t>(found - known->begin());
  known->push_back(value);
  return known->size() - 1;
}

}  // namespace

absl::StatusOr<std::string> PlotScript(const Report& report, const std::filesystem::path& svg) {
  const Plot& plot = report.plot;
  std::vector<std::string> series, names;  // of lines, and of places on an axis of texts
  std::vector<std::string> data;
  bool is_text_axis = false;
  double least_x = 0.0;
  for (const Row& row : report.rows) {
    const Cell* const x = Find(row, plot.x);
    const std::optional<Point> y = ToPoint(Find(row, plot.y));
    if (x == nullptr || !y.has_value()) continue;
    const size_t line = IndexIn(&series, ToText(Find(row, plot.series)));
    data.resize(series.size());
    std::optional<Point> place = ToPoint(x);
    if (!place.has_value()) {
      is_text_axis = true;
      place = Point{.value = static_cast<double>(IndexIn(&names, ToText(x)))};
    }
    least_x = data[line].empty() && line == 0 ? place->value : std::min(least_x, place->value);
    data[line] +=
        absl::StrFormat("%.10g %.10g %.10g %.10g\n", place->value, y->value, y->low, y->high);
  }
  if (series.empty()) {
    return absl::InvalidArgumentError(
        StrCat("nothing to draw: no row has ", plot.x, " and ", plot.y));
  }
  std::string script = absl::StrFormat(
      "set terminal svg size 800,500 dynamic background rgb 'white'\n"
      "set output %s\nset title %s noenhanced\nset xlabel %s noenhanced\nset ylabel %s "
      "noenhanced\nset key outside right noenhanced\nset grid\n",
      Quoted(svg.native()), Quoted(report.evaluation), Quoted(plot.x), Quoted(plot.y));
  if (is_text_axis) {
    script += "set xtics rotate by -30 noenhanced (";
    for (size_t i = 0; i < names.size(); ++i) {
      script += absl::StrFormat("%s%s %d", i == 0 ? "" : ", ", Quoted(names[i]), i);
    }
    script += absl::StrFormat(")\nset xrange [-0.5:%g]\n", static_cast<double>(names.size()) - 0.5);
  } else if (least_x > 0.0) {
    script += "set logscale x 2\nset format x \"%.0f\"\n";
  }
  if (Find(report.rows.front(), plot.y) != nullptr) {
    const auto* const score = std::get_if<Score>(Find(report.rows.front(), plot.y));
    if (score != nullptr && score->kind == Score::Kind::kPercent) script += "set yrange [0:105]\n";
  }
  std::string lines;
  for (size_t i = 0; i < series.size(); ++i) {
    script += absl::StrFormat("$line%d << EOD\n%sEOD\n", i, data[i]);
    lines += absl::StrFormat("%s$line%d using 1:2:3:4 with yerrorlines title %s",
                             i == 0 ? "" : ", ", i, Quoted(series[i]));
  }
  return StrCat(script, "plot ", lines, "\n");
}

absl::Status FindGnuplot() {
  const auto found = model_home::RunChild({kGnuplot, "--version"}, {}, &absl::OkStatus);
  if (found.ok() && found->exit_status == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no gnuplot was found, which draws plots: install it (apt-get install gnuplot-nox), or "
      "leave --plot out");
}

absl::Status DrawPlot(const Report& report, const std::filesystem::path& svg,
                      const Progress& progress) {
  ASSIGN_OR_RETURN(const std::string script, PlotScript(report, svg));
  std::filesystem::path file = svg;
  file += ".gnuplot";
  RETURN_IF_ERROR(WriteFileAtomic(file, script));
  RETURN_IF_ERROR(FindGnuplot());
  const auto drawn = model_home::RunChild({kGnuplot, file.native()}, {},
                                          [&] { return progress.CheckCancelled(); });
  std::error_code error;
  std::filesystem::remove(file, error);
  RETURN_IF_ERROR(drawn.status());
  if (drawn->exit_status != 0) {
    return absl::InternalError(StrCat("gnuplot could not draw ", svg, ": ", drawn->output));
  }
  return absl::OkStatus();
}

}  // namespace fovea::eval
