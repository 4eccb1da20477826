// A report as a picture: SVG, drawn by gnuplot.
#pragma once

#include <filesystem>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "eval/report.h"

namespace fovea::eval {

// What gnuplot is told, with the data in it. InvalidArgument where the rows have nothing to draw.
absl::StatusOr<std::string> PlotScript(const Report& report, const std::filesystem::path& svg);

// Writes `svg`. FailedPrecondition, saying how to install it, where there is no gnuplot.
absl::Status DrawPlot(const Report& report, const std::filesystem::path& svg,
                      const Progress& progress);

// Whether there is a gnuplot; else the error of DrawPlot. For who would find it out late.
absl::Status FindGnuplot();

}  // namespace fovea::eval
