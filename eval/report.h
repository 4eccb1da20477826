// What an evaluation found: rows of named values.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "eval/score.h"

namespace fovea::eval {

using Cell = std::variant<std::string, int64_t, double, Score>;
// In the order in which they are shown. A name stands in a row once; rows may lack some.
using Row = std::vector<std::pair<std::string, Cell>>;

// How rows become a picture: a line for each value of `series`.
struct Plot {
  std::string x;       // a column of numbers, shown on a logarithmic axis; or of texts
  std::string y;       // a column of numbers or scores
  std::string series;  // a column of texts; empty: one line
};

struct Report {
  std::string evaluation;  // "facts"
  Row settings;            // what the rows have in common
  // What the memories held, by what names them ("65536"): TestMemory::TextHash.
  std::vector<std::pair<std::string, std::string>> text_hashes;
  std::vector<Row> rows;
  Plot plot;
};

}  // namespace fovea::eval
