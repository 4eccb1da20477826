// What is said of a file of JSON records that holds something else.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/strings.h"

namespace fovea::eval {

// InvalidArgument: "want <wanted>: <what is wrong>", without the library's own numbers.
inline absl::Status JsonError(std::string_view wanted, const nlohmann::json::exception& error) {
  const std::string_view what = error.what();
  constexpr std::string_view kNumberEnd = "] ";
  const size_t end = what.starts_with('[') ? what.find(kNumberEnd) : std::string_view::npos;
  return absl::InvalidArgumentError(
      StrCat("want ", wanted, ": ",
             end == std::string_view::npos ? what : what.substr(end + kNumberEnd.size())));
}

}  // namespace fovea::eval
