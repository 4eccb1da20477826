// JSON configuration files: parsed without exceptions, duplicate keys refused, values read with
// their types and ranges checked. null means the same as a missing key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fovea::model {

using Json = nlohmann::json;

// InvalidArgument with the place of the first error. Objects with a key twice are errors.
absl::StatusOr<Json> ParseJson(std::string_view text);

// The object in a file of at most `max_size_bytes`; messages begin with the path.
absl::StatusOr<Json> ReadJsonObject(const std::filesystem::path& path,
                                    size_t max_size_bytes = size_t{16} << 20);

// Null when absent or null.
const Json* JsonFind(const Json& object, std::string_view key);

// The value of `key`, `fallback` when absent; InvalidArgument names the key when the type is
// another one (a whole number may be written as a float, a float as a whole number).
absl::StatusOr<int64_t> JsonInteger(const Json& object, std::string_view key, int64_t fallback);
absl::StatusOr<float> JsonFloat(const Json& object, std::string_view key, float fallback);
absl::StatusOr<bool> JsonBool(const Json& object, std::string_view key, bool fallback);
absl::StatusOr<std::string> JsonString(const Json& object, std::string_view key,
                                       std::string_view fallback);
// A whole number without its key: an element of an array.
std::optional<int64_t> JsonToInteger(const Json& value);

}  // namespace fovea::model
