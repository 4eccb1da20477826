#include "documents/jsonl.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "documents/charset.h"
#include "documents/errors.h"
#include "documents/json_fault.h"
#include "documents/names.h"
#include "documents/string_document.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kMaxIdBytes = 1024;

// Keeps the fields of a record as they are parsed and nothing else: a tree of a hostile line would
// take many times the line's memory.
class RecordHandler {
 public:
  using json = nlohmann::json;

  std::optional<std::string> text, title, id, collection;
  std::string error;
  bool is_json = true;  // else `error` is about the line's syntax, or a number's size,
  size_t error_at = 0;  // at this byte, counted from 1
  // Of a record that is not JSON as it stands: the name ("id", "collection") and whether there is
  // a text or title with a surrogate that is not of a pair, for which U+FFFD stands.
  std::string halved_name;
  bool has_halved_text = false;

  bool HasSameTexts(const RecordHandler& other) const {
    return text == other.text && title == other.title;
  }
  bool HasSameFields(const RecordHandler& other) const {
    return HasSameTexts(other) && id == other.id && collection == other.collection;
  }

  bool null() { return Scalar(); }
  bool boolean(bool) { return Wrong("true or false"); }
  bool number_integer(json::number_integer_t value) { return Number(std::to_string(value)); }
  bool number_unsigned(json::number_unsigned_t value) { return Number(std::to_string(value)); }
  bool number_float(json::number_float_t, const std::string& digits) {
    // An integer of more than 64 bits comes as this, too.
    const bool is_integer = digits.find_first_of(".eE") == std::string::npos;
    return is_integer ? Number(digits) : Wrong("a number");
  }
  bool string(std::string& value) {
    if (depth_ == 0) return NotAnObject();
    if (depth_ == 1 && field_ != nullptr) *field_ = std::move(value);
    return true;
  }
  bool binary(json::binary_t&) { return Scalar(); }
  bool start_object(size_t) {
    if (depth_ == 1 && field_ != nullptr) return Wrong("an object");
    ++depth_;
    return true;
  }
  bool end_object() {
    --depth_;
    return true;
  }
  bool start_array(size_t) {
    if (depth_ == 0) return NotAnObject();
    if (depth_ == 1 && field_ != nullptr) return Wrong("an array");
    ++depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool key(std::string& name) {
    if (depth_ != 1) return true;
    name_ = name;
    field_ = name == "text"         ? &text
             : name == "title"      ? &title
             : name == "id"         ? &id
             : name == "collection" ? &collection
                                    : nullptr;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception& exception) {
    error = JsonFault(exception.what());
    error_at = position;
    is_json = false;
    return false;
  }

 private:
  bool NotAnObject() {
    error = "not a record: want an object with the field \"text\", {\"text\": \"…\"}";
    return false;
  }
  bool Scalar() { return depth_ > 0 || NotAnObject(); }
  bool Wrong(const char* actual) {
    if (depth_ == 0) return NotAnObject();
    if (depth_ > 1 || field_ == nullptr) return true;
    error = StrCat("field \"", name_, "\" is ", actual, ", want a string");
    return false;
  }
  bool Number(std::string value) {
    if (depth_ == 1 && field_ == &id) {
      id = std::move(value);
      return true;
    }
    return Wrong("a number");
  }

  int64_t depth_ = 0;
  std::optional<std::string>* field_ = nullptr;  // of the key before, at the top level
  std::string name_;
};

// How many bytes at the beginning of `text` are a number of JSON; 0: none.
size_t NumberBytes(std::string_view text) {
  size_t at = text.starts_with('-') ? 1 : 0;
  const auto take_digits = [&](size_t from) {
    at = std::min(text.find_first_not_of("0123456789", from), text.size());
    return at > from;
  };
  const bool is_zero = text.substr(at).starts_with('0');
  if (!take_digits(at)) return 0;
  if (is_zero && at > (text.starts_with('-') ? 2u : 1u)) return 0;  // 01
  if (text.substr(at).starts_with('.') && !take_digits(at + 1)) return 0;
  if (text.substr(at).starts_with('e') || text.substr(at).starts_with('E')) {
    const std::string_view sign = text.substr(at + 1);
    if (!take_digits(at + (sign.starts_with('+') || sign.starts_with('-') ? 2 : 1))) return 0;
  }
  return at;
}

// The code of "\uD83D" and the like at the beginning of `text`; −1 where there is none.
int CodeUnitOf(std::string_view text) {
  constexpr size_t kBytes = 6;
  if (text.size() < kBytes || !text.starts_with("\\u")) return -1;
  int code = 0;
  const auto [end, error] = std::from_chars(text.data() + 2, text.data() + kBytes, code, 16);
  return error == std::errc() && end == text.data() + kBytes ? code : -1;
}

// How many bytes of `text` are a character, or an escape sequence, that a string of JSON may hold;
// 0: none.
size_t CharacterBytes(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text.front());
  if (byte == '\\') {
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    return text.size() > 1 && kEscapes.find(text[1]) != kEscapes.npos ? 2 : 0;
  }
  if (byte < 0x80) return byte >= ' ' ? 1 : 0;
  const size_t size = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
  return ScanUtf8(text.substr(0, size)).valid_bytes == size ? size : 0;
}

// What stands for that which a string of JSON does not have.
struct StandIns {
  char byte = '?';                                  // no UTF-8, control characters, the start of an
                                                    // escape sequence that there is not
  std::string_view half_of_surrogates = "\\ufffd";  // as many bytes as that
};

// A string with its quotes, as JSON has them.
std::string InPlainString(std::string_view text, const StandIns& stand_ins) {
  const auto is_high = [](int code) { return code >= 0xD800 && code <= 0xDBFF; };
  const auto is_low = [](int code) { return code >= 0xDC00 && code <= 0xDFFF; };
  constexpr size_t kBytes = 6;
  std::string plain;
  while (!text.empty()) {
    const int code = CodeUnitOf(text);
    size_t size = code >= 0 ? kBytes : CharacterBytes(text);
    const bool is_pair = is_high(code) && is_low(CodeUnitOf(text.substr(kBytes)));
    if (is_pair) size = 2 * kBytes;
    if (size == 0) {
      plain.push_back(stand_ins.byte);
      text.remove_prefix(1);
      continue;
    }
    if (!is_pair && (is_high(code) || is_low(code))) {
      plain += stand_ins.half_of_surrogates;
    } else {
      plain += text.substr(0, size);
    }
    text.remove_prefix(size);
  }
  return plain;
}

// `line` with what JSON does not have, and programs write nevertheless, in other words: null in
// place of NaN, Infinity and -Infinity, 0.5 in place of a number that is too large, and in strings
// what InPlainString says. As long as before, but for a byte that each NaN adds: *longer_from gets
// where that is behind.
std::string InPlainJson(std::string_view line, const StandIns& stand_ins,
                        std::vector<size_t>* longer_from) {
  std::string plain;
  while (!line.empty()) {
    size_t size = 1;
    std::string replacement;
    if (line.front() == '"') {
      while (size < line.size() && line[size] != '"') size += line[size] == '\\' ? 2 : 1;
      size = std::min(size + 1, line.size());
      replacement = InPlainString(line.substr(0, size), stand_ins);
    } else if (line.starts_with("NaN")) {
      size = 3;
      replacement = "null";
      longer_from->push_back(plain.size() + replacement.size());
    } else if (line.starts_with("Infinity") || line.starts_with("-Infinity")) {
      size = line.find('y') + 1;
      replacement = "null";
    } else if (const size_t number_bytes = NumberBytes(line); number_bytes > 0) {
      size = number_bytes;
      if (std::isinf(std::strtod(std::string(line.substr(0, size)).c_str(), nullptr))) {
        replacement = "0.5";
      }
    } else if (std::isdigit(static_cast<unsigned char>(line.front())) != 0) {
      // No number: what its digits would make of the rest is not asked.
      size = std::min(line.find_first_not_of("0123456789"), line.size());
    }
    if (replacement.empty()) replacement = line.substr(0, size);
    replacement.resize(std::max(replacement.size(), size), ' ');
    plain += replacement;
    line.remove_prefix(size);
  }
  return plain;
}

bool Parse(std::string_view json, RecordHandler* record) {
  *record = RecordHandler();
  return nlohmann::json::sax_parse(json.begin(), json.end(), record);
}

// Whether a record whose bytes JSON does not have is one but for fields that are not read. Then
// *record is that; else false, and *record is the error that is left without them.
bool ParseInPlainJson(std::string_view line, RecordHandler* record) {
  // Two readings that differ in a field that is read differ in what stands in for such bytes.
  RecordHandler other;
  std::vector<size_t> longer_from;
  const std::string plain = InPlainJson(line, {}, &longer_from);
  if (plain == line) return false;
  RecordHandler in_plain;
  if (!Parse(plain, &in_plain)) {
    *record = in_plain;
    record->error_at -=
        static_cast<size_t>(std::count_if(longer_from.begin(), longer_from.end(),
                                          [&](size_t from) { return from <= in_plain.error_at; }));
    return false;
  }
  const std::string again = InPlainJson(line, {.byte = '!'}, &longer_from);
  if (plain != again && (!Parse(again, &other) || !in_plain.HasSameFields(other))) return false;
  const std::string halved = InPlainJson(line, {.half_of_surrogates = "\\ufffc"}, &longer_from);
  if (plain != halved) {
    if (!Parse(halved, &other)) return false;
    in_plain.has_halved_text = !in_plain.HasSameTexts(other);
    in_plain.halved_name = in_plain.id != other.id                   ? "id"
                           : in_plain.collection != other.collection ? "collection"
                                                                     : "";
  }
  *record = in_plain;
  return true;
}

absl::StatusOr<std::unique_ptr<TextDocument>> ParseRecord(std::string_view line,
                                                          const std::string& file_name,
                                                          int64_t line_number,
                                                          uint64_t file_size_bytes) {
  const std::string where = StrCat(file_name, ", line ", line_number);
  RecordHandler record;
  if (!Parse(line, &record) && (record.is_json || !ParseInPlainJson(line, &record))) {
    const std::string at =
        record.is_json ? "" : StrCat("not a JSON record: at byte ", record.error_at, ": ");
    return absl::InvalidArgumentError(StrCat(where, ": ", at, record.error));
  }
  if (!record.text.has_value()) {
    return absl::InvalidArgumentError(StrCat(where, ": the record has no field \"text\""));
  }
  // Two of them would be one: names are whole or none.
  if (!record.halved_name.empty()) {
    return absl::InvalidArgumentError(StrCat(where, ": field \"", record.halved_name, "\" has ",
                                             kHalfOfPair, ": want a name of characters"));
  }
  const size_t valid_bytes = ScanUtf8(*record.text).valid_bytes;
  if (valid_bytes < record.text->size()) {
    return NotTextError(StrCat(where, ", field \"text\""), *record.text, valid_bytes, 0);
  }
  if (IsBlank(*record.text)) return EmptyError(where, "");
  if (record.id.has_value() && record.id->size() > kMaxIdBytes) {
    return absl::InvalidArgumentError(StrCat(where, ": field \"id\" has ", record.id->size(),
                                             " bytes, want at most ", kMaxIdBytes));
  }
  if (record.collection.has_value() && !record.collection->empty()) {
    const absl::Status valid = CheckCollectionName(*record.collection);
    if (!valid.ok()) {
      return absl::InvalidArgumentError(
          StrCat(where, ": field \"collection\": ", ToStd(valid.message())));
    }
  }
  const bool has_id = record.id.has_value() && !record.id->empty();
  auto document = std::make_unique<StringDocument>(*std::move(record.text));
  document->title = OneLine(record.title.value_or(""), kMaxTitleBytes);
  document->source = has_id ? StrCat(file_name, "#", PrintableName(*record.id))
                            : StrCat(file_name, "#", line_number);
  document->replaceable = has_id;
  document->collection = record.collection.value_or("");
  document->set_size_bytes(file_size_bytes);
  if (record.has_halved_text) {
    document->warning =
        "halves of surrogate pairs (\\uD800 to \\uDFFF alone), which are no characters, are stored "
        "as "
        "U+FFFD";
  }
  return document;
}

// Lines of a file, one at a time.
class LineReader {
 public:
  LineReader(InputFile& file, size_t max_line_bytes)
      : file_(file), max_line_bytes_(max_line_bytes) {}

  // The next line without its end, valid until the next call; nullopt at the file's end.
  // *too_long: the line is longer than the limit, and was passed over.
  absl::StatusOr<std::optional<std::string_view>> Next(bool* too_long) {
    *too_long = false;
    size_t searched = begin_;
    while (true) {
      const size_t end = buffer_.find('\n', searched);
      if (end != std::string::npos) {
        const std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
        begin_ = end + 1;
        *too_long = *too_long || line.size() > max_line_bytes_;
        return line;
      }
      // Keep the unfinished line, unless it is too long to be wanted.
      buffer_.erase(0, begin_);
      begin_ = 0;
      if (buffer_.size() > max_line_bytes_) {
        *too_long = true;
        buffer_.clear();
      }
      searched = buffer_.size();
      RETURN_IF_ERROR(file_.Read(kChunkBytes, &buffer_));
      if (buffer_.size() == searched) {
        if (buffer_.empty() && !*too_long) return std::nullopt;
        begin_ = buffer_.size();
        return std::string_view(buffer_);
      }
    }
  }

 private:
  InputFile& file_;
  const size_t max_line_bytes_;
  std::string buffer_;
  size_t begin_ = 0;  // of the next line in buffer_
};

}  // namespace

absl::Status ReadJsonl(InputFile& file, const ReadLimits& limits, Visitor visit) {
  LineReader lines(file, limits.max_jsonl_line_bytes);
  bool any = false;
  for (int64_t line_number = 1;; ++line_number) {
    bool too_long = false;
    absl::StatusOr<std::optional<std::string_view>> line = lines.Next(&too_long);
    if (!line.ok()) return visit(file.name(), line.status());
    if (!line->has_value()) break;
    const std::string source = StrCat(file.name(), "#", line_number);
    if (too_long) {
      any = true;
      RETURN_IF_ERROR(visit(
          source, absl::ResourceExhaustedError(StrCat(
                      file.name(), ", line ", line_number, ": longer than ",
                      limits.max_jsonl_line_bytes, " bytes: split its text into more records"))));
      continue;
    }
    std::string_view record = **line;
    const bool is_marked = !CharsetOfMark(record).empty();
    if (line_number == 1 && (is_marked || LooksLikeUtf16(record))) {
      return visit(file.name(), absl::InvalidArgumentError(StrCat(
                                    file.name(), ": UTF-16, JSONL is UTF-8: convert it, `iconv -f ",
                                    is_marked ? "UTF-16" : "UTF-16LE", " -t UTF-8`")));
    }
    if (line_number == 1 && record.starts_with(kByteOrderMark)) {
      record.remove_prefix(kByteOrderMark.size());
    }
    if (IsBlank(record)) continue;
    any = true;
    auto document = ParseRecord(record, file.name(), line_number, file.size_bytes());
    const std::string named = document.ok() ? (*document)->source : source;
    RETURN_IF_ERROR(visit(named, std::move(document)));
  }
  if (!any) return visit(file.name(), EmptyError(file.name(), ""));
  return absl::OkStatus();
}

}  // namespace fovea::documents
