#include "model/weights/json_file.h"

#include <cmath>
#include <set>

#include "base/file.h"
#include "model/weights/file_checks.h"

namespace fovea::model {
namespace {

// Builds the document as nlohmann's own handler does, but stops with a message where that one
// throws or keeps the last of several equal keys.
class StrictHandler : public nlohmann::json_sax<Json> {
 public:
  explicit StrictHandler(Json* result) : result_(result) {}
  const std::string& error() const { return error_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& value) override {
    if (open_.back()->contains(value)) {
      error_ = StrCat("key ", Printable(value), " occurs twice in one object");
      return false;
    }
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    error_ = StrCat("no valid JSON at byte ", position, " ('", Printable(token), "')");
    return false;
  }

 private:
  template <typename T>
  Json* Insert(T&& value) {
    if (open_.empty()) {
      *result_ = std::forward<T>(value);
      return result_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::forward<T>(value));
      return &parent.back();
    }
    return &(parent[key_] = std::forward<T>(value));
  }
  template <typename T>
  bool Add(T&& value) {
    Insert(std::forward<T>(value));
    return true;
  }
  bool Open(Json value) {
    // Far above what any of these files nests.
    if (open_.size() >= 64) {
      error_ = "nested deeper than 64 levels";
      return false;
    }
    // Parents do not move while a child is open: only the innermost container grows.
    open_.push_back(Insert(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json* result_;
  std::vector<Json*> open_;
  std::string key_;
  std::string error_;
};

absl::Status WrongType(std::string_view key, std::string_view want) {
  return absl::InvalidArgumentError(StrCat("key ", key, ": want ", want));
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text) {
  Json result;
  StrictHandler handler(&result);
  if (!Json::sax_parse(text.begin(), text.end(), &handler)) {
    return absl::InvalidArgumentError(handler.error());
  }
  return result;
}

absl::StatusOr<Json> ReadJsonObject(const std::filesystem::path& path, size_t max_size_bytes) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, max_size_bytes));
  absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) return Annotate(json.status(), path.native());
  if (!json->is_object()) {
    return absl::InvalidArgumentError(StrCat(path, ": want a JSON object"));
  }
  return json;
}

const Json* JsonFind(const Json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> JsonToInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    // Whole numbers that a double holds exactly.
    if (std::abs(number) <= 0x1p53 && number == std::floor(number)) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

absl::StatusOr<int64_t> JsonInteger(const Json& object, std::string_view key, int64_t fallback) {
  const Json* value = JsonFind(object, key);
  if (value == nullptr) return fallback;
  if (const auto number = JsonToInteger(*value)) return *number;
  return WrongType(key, "a whole number");
}

absl::StatusOr<float> JsonFloat(const Json& object, std::string_view key, float fallback) {
  const Json* value = JsonFind(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) return WrongType(key, "a number");
  return static_cast<float>(value->get<double>());
}

absl::StatusOr<bool> JsonBool(const Json& object, std::string_view key, bool fallback) {
  const Json* value = JsonFind(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonString(const Json& object, std::string_view key,
                                       std::string_view fallback) {
  const Json* value = JsonFind(object, key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return WrongType(key, "a string");
  return value->get<std::string>();
}

}  // namespace fovea::model
