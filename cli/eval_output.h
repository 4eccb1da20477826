// Reports of evaluations as JSON, and as tables for people.
#pragma once

#include <string>

#include "cli/output.h"
#include "eval/report.h"
#include "eval/ways.h"

namespace fovea::cli {

// {"evaluation", "settings": {…}, "text_hashes": {…}, "rows": [{…}]}; a score is {"percent" or
// "ratio", "low", "high", "n"}. Names are in lower case, with _ for spaces.
Json ToJson(const eval::Report& report);

// One answer to one question.
Json ToJson(const eval::Way& way, const eval::Question& question, const eval::Outcome& outcome);

// A line of the settings, and a column for each name that a row has. Scores with their intervals.
std::string FormatReport(const eval::Report& report);

// How this process was started, so that a shell starts it again.
std::string CommandLine();

}  // namespace fovea::cli
