// The fields of a JSON object that a client sent, by type; what is wrong with one is kept as an
// error that names it.
//
//   Fields fields(json, "the request");
//   const double temperature = fields.Number("temperature", 0.0);
//   RETURN_IF_ERROR(fields.status());
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "answer/json.h"
#include "base/status.h"

namespace fovea::serve {

using answer::Json;

// InvalidArgument for what is no JSON object says why not, and where.
absl::StatusOr<Json> ParseObject(const std::string& text);

// Not thread-safe. A field that is missing or null has its default.
class Fields {
 public:
  // `name` begins the errors of fields of an object within another: "fovea".
  explicit Fields(const Json& object, std::string name = "")
      : object_(object), name_(std::move(name)) {}

  // Null where there is none.
  const Json* Find(std::string_view field) const;
  bool Bool(std::string_view field, bool otherwise);
  // true, false, or as options of the command line have them: "on", "off". Unset where there is
  // none.
  std::optional<bool> OnOff(std::string_view field);
  double Number(std::string_view field, double otherwise);
  int64_t Integer(std::string_view field, int64_t otherwise,
                  int64_t least = std::numeric_limits<int64_t>::min(),
                  int64_t most = std::numeric_limits<int64_t>::max());
  std::string Text(std::string_view field, const std::string& otherwise);
  // A text, or a list of texts.
  std::vector<std::string> Texts(std::string_view field);
  // An error where the field says anything but `value`, or null: what is not offered.
  void Refuse(std::string_view field, const Json& value = nullptr);
  // An error for fields that are not in `known`.
  void AllowOnly(std::initializer_list<std::string_view> known);
  void Fail(std::string_view field, std::string_view what);

  // The first error.
  const absl::Status& status() const { return status_; }

 private:
  const Json& object_;
  const std::string name_;
  absl::Status status_;
};

}  // namespace fovea::serve
