// What every evaluation takes. Each is a function from a subject and its options to a report, and
// gives the same report again with the same seed, on the same machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/report.h"
#include "eval/subject.h"
#include "eval/ways.h"

namespace fovea::eval {

struct CommonOptions {
  WayOptions ways;
  std::vector<int64_t> tokens;               // sizes of the memory, one after another
  std::vector<std::filesystem::path> texts;  // of what fills it
  uint64_t seed = 0;
  OutcomeVisitor visit;  // may be null
};

}  // namespace fovea::eval
