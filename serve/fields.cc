#include "serve/fields.h"

#include <algorithm>

#include "documents/json_fault.h"
#include "documents/utf8.h"

namespace fovea::serve {

absl::StatusOr<Json> ParseObject(const std::string& text) {
  // The parser keeps what is nested on the heap; what writes and frees it does not everywhere.
  constexpr int kMaxDepth = 32;
  bool is_too_deep = false;
  const auto is_kept = [&](int depth, Json::parse_event_t, Json&) {
    is_too_deep = is_too_deep || depth > kMaxDepth;
    return depth <= kMaxDepth;
  };
  Json json;
  std::string fault;
  try {
    json = Json::parse(text, is_kept);
    if (!json.is_object()) fault = StrCat("its type is ", json.type_name());
  } catch (const Json::parse_error& error) {
    fault = StrCat("at byte ", error.byte, ": ", documents::JsonFault(error.what()));
  } catch (const Json::exception& error) {  // a number that is too large
    return absl::InvalidArgumentError(StrCat("the body: ", documents::JsonFault(error.what()),
                                             ": want numbers of at most 1.8e308"));
  }
  if (is_too_deep) {
    return absl::InvalidArgumentError(StrCat("the body is nested more than ", kMaxDepth, " deep"));
  }
  if (!fault.empty()) {
    return absl::InvalidArgumentError(StrCat("the body is no JSON object: ", fault));
  }
  return json;
}

const Json* Fields::Find(std::string_view field) const {
  const auto found = object_.find(std::string(field));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::Fail(std::string_view field, std::string_view what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(StrCat(name_, name_.empty() ? "" : ".", field, ": ", what));
}

bool Fields::Bool(std::string_view field, bool otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Fail(field, "want true or false");
  return otherwise;
}

std::optional<bool> Fields::OnOff(std::string_view field) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  if (*value == "on" || *value == "off") return *value == "on";
  Fail(field, "want true or false, or \"on\" or \"off\"");
  return std::nullopt;
}

double Fields::Number(std::string_view field, double otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  if (value->is_number()) return value->get<double>();
  Fail(field, "want a number");
  return otherwise;
}

int64_t Fields::Integer(std::string_view field, int64_t otherwise, int64_t least, int64_t most) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  const bool fits =
      value->is_number_integer() &&
      (!value->is_number_unsigned() ||
       value->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) {
    return value->get<int64_t>();
  }
  Fail(field, StrCat("want a whole number from ", least, " to ", most));
  return otherwise;
}

std::string Fields::Text(std::string_view field, const std::string& otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  Fail(field, "want a text");
  return otherwise;
}

std::vector<std::string> Fields::Texts(std::string_view field) {
  const Json* const value = Find(field);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  std::vector<std::string> texts;
  if (value->is_array()) {
    for (const Json& item : *value) {
      if (item.is_string()) texts.push_back(item.get<std::string>());
    }
    if (texts.size() == value->size()) return texts;
  }
  Fail(field, "want a text or a list of texts");
  return {};
}

void Fields::Refuse(std::string_view field, const Json& value) {
  const Json* const found = Find(field);
  if (found == nullptr || *found == value) return;
  Fail(field, value.is_null()
                  ? "is not offered here: leave it out"
                  : StrCat("want ", answer::JsonText(value), ", nothing else is offered here"));
}

void Fields::AllowOnly(std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string names;
    for (const std::string_view one : known) names += StrCat(names.empty() ? "" : ", ", one);
    Fail(documents::OneLine(name, 100), StrCat("there is no such field; want ", names));
    return;
  }
}

}  // namespace fovea::serve
