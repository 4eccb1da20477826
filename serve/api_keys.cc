#include "serve/api_keys.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "documents/names.h"

namespace fovea::serve {
namespace {

constexpr size_t kLeastKeyChars = 16;
constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr std::string_view kSpace = " \t\r";

// The next word of *line; empty at its end.
std::string_view TakeWord(std::string_view* line) {
  line->remove_prefix(std::min(line->find_first_not_of(kSpace), line->size()));
  const std::string_view word = line->substr(0, line->find_first_of(kSpace));
  line->remove_prefix(word.size());
  return word;
}

// The next collection of *list, which is not empty, and the comma behind it, where another one
// follows. InvalidArgument for what is none, without saying what stands there.
absl::StatusOr<std::string> TakeCollection(std::string_view* list) {
  std::string name;
  if (list->starts_with('"')) {
    size_t end = 1;
    while (end < list->size() && (*list)[end] != '"') end += (*list)[end] == '\\' ? 2 : 1;
    if (end >= list->size()) return absl::InvalidArgumentError("a quote that does not end");
    const auto json = nlohmann::json::parse(list->substr(0, end + 1), nullptr,
                                            /*allow_exceptions=*/false);
    if (!json.is_string()) {
      return absl::InvalidArgumentError("what stands in quotes is no string of JSON");
    }
    name = json.get<std::string>();
    list->remove_prefix(end + 1);
  } else {
    name = list->substr(0, list->find_first_of(StrCat(",", kSpace)));
    list->remove_prefix(name.size());
  }
  if (std::string wrong = documents::WrongWithCollectionName(name); !wrong.empty()) {
    return absl::InvalidArgumentError(std::move(wrong));
  }
  if (list->empty()) return name;
  const bool is_followed =
      list->starts_with(',') && list->size() > 1 && kSpace.find((*list)[1]) == kSpace.npos;
  if (!is_followed) {
    return absl::InvalidArgumentError(
        "behind it want the line's end, or a comma and the next one, without spaces; names with "
        "spaces or commas are quoted: KEY \"my letters\",minutes");
  }
  list->remove_prefix(1);
  return name;
}

// In the time that their length takes, wherever they differ.
bool AreEqual(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    // Else a compiler may end the loop where nothing can change any more.
    asm volatile("" : "+r"(difference));
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

}  // namespace

bool Access::Allows(std::string_view collection) const {
  return !collections.has_value() ||
         std::find(collections->begin(), collections->end(), collection) != collections->end();
}

absl::StatusOr<ApiKeys> ApiKeys::Read(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxFileBytes));
  return Parse(text, file.native());
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text, std::string_view name) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  ApiKeys keys;
  int64_t n_lines = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++n_lines;
    const std::string_view word = TakeWord(&line);
    if (word.empty() || word[0] == '#') continue;
    // What stands in the line is not repeated: messages end in logs.
    const auto error = [&](std::string_view what) {
      return absl::InvalidArgumentError(StrCat(name, ", line ", n_lines, ": ", what));
    };
    if (word.size() < kLeastKeyChars ||
        std::any_of(word.begin(), word.end(), [](char c) { return c < '!' || c > '~'; })) {
      return error(StrCat("a key has at least ", kLeastKeyChars,
                          " printable ASCII characters; `openssl rand -hex 24` makes one"));
    }
    // Else a key whose collections stand behind a comma would be one without limits.
    if (word.find_first_of(",\"'") != word.npos) {
      return error("a key has no commas and quotes: collections stand behind a space");
    }
    Key key{.digest = Sha256Hex(word), .access = {}};
    line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
    line = line.substr(0, line.find_last_not_of(kSpace) + 1);
    if (!line.empty()) key.access.collections.emplace();
    while (!line.empty()) {
      absl::StatusOr<std::string> collection = TakeCollection(&line);
      if (!collection.ok()) {
        return error(StrCat("collection ", key.access.collections->size() + 1,
                            " of the key: ", ToStd(collection.status().message())));
      }
      key.access.collections->push_back(*std::move(collection));
    }
    if (std::any_of(keys.keys_.begin(), keys.keys_.end(),
                    [&](const Key& other) { return other.digest == key.digest; })) {
      return error("this key stands in the file twice");
    }
    keys.keys_.push_back(std::move(key));
  }
  if (keys.empty()) {
    return absl::InvalidArgumentError(StrCat(name, ": holds no key; want one a line"));
  }
  return keys;
}

bool ApiKeys::has_limited_keys() const {
  return std::any_of(keys_.begin(), keys_.end(),
                     [](const Key& key) { return key.access.is_limited(); });
}

std::optional<Access> ApiKeys::Find(std::string_view authorization) const {
  if (empty()) return Access();
  constexpr std::string_view kScheme = "Bearer ";
  const std::string digest =
      Sha256Hex(authorization.starts_with(kScheme) ? authorization.substr(kScheme.size())
                                                   : std::string_view());
  const Key* found = nullptr;
  for (const Key& key : keys_) {  // all of them, each time
    if (AreEqual(key.digest, digest)) found = &key;
  }
  return found == nullptr ? std::nullopt : std::optional(found->access);
}

}  // namespace fovea::serve
