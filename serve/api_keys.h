// Who may use the server: keys, each for everything or for some collections.
//
// A file of keys has one a line, and behind it, where the key is limited, its collections:
//
//   # the whole memory
//   3f9c…
//   # two collections
//   b81d… letters,minutes
//   # names with blanks, commas or a quote at the beginning are quoted as JSON's strings are
//   77c0… "my letters","minutes, 2026"
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fovea::serve {

// What a request may see and change. Nothing set: everything.
struct Access {
  std::optional<std::vector<std::string>> collections;  // these alone, at least one

  bool is_limited() const { return collections.has_value(); }
  bool Allows(std::string_view collection) const;
};

// Immutable.
class ApiKeys {
 public:
  // Without keys: everybody has access to everything.
  ApiKeys() = default;
  // InvalidArgument for what is no such file, naming the line and nothing that stands in it, or has
  // no key. A key has at least 16 printable characters, no space, comma or quote. A byte-order mark
  // at the beginning is passed over.
  static absl::StatusOr<ApiKeys> Read(const std::filesystem::path& file);
  static absl::StatusOr<ApiKeys> Parse(std::string_view text, std::string_view name);

  bool empty() const { return keys_.empty(); }
  bool has_limited_keys() const;

  // What an Authorization header ("Bearer KEY") gives access to; unset: it has no known key. Takes
  // as long whichever key is given, known or not, of whatever beginning.
  std::optional<Access> Find(std::string_view authorization) const;

 private:
  struct Key {
    std::string digest;  // SHA-256: comparing takes as long for keys of any length
    Access access;
  };
  std::vector<Key> keys_;
};

}  // namespace fovea::serve
