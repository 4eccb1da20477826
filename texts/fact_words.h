// Words that facts are made of.
#pragma once

#include <string>
#include <vector>

namespace fovea::texts {

// What occurs in texts as names, things, places and what describes things (harvest.h).
struct FactWords {
  std::vector<std::string> names, things, places, qualities;
};

}  // namespace fovea::texts
