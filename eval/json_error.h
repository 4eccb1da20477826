// What is said of a file of JSON records that holds something else.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/strings.h"
#include "documents/json_fault.h"

namespace fovea::eval {

// InvalidArgument: "want <wanted>: <what is wrong>", and of what is no JSON, at which byte.
inline absl::Status JsonError(std::string_view wanted, const nlohmann::json::exception& error) {
  const auto* const parse_error = dynamic_cast<const nlohmann::json::parse_error*>(&error);
  return absl::InvalidArgumentError(
      StrCat("want ", wanted, ": ",
             parse_error != nullptr ? StrCat("at byte ", parse_error->byte, ": ") : std::string(),
             documents::JsonFault(error.what())));
}

}  // namespace fovea::eval
