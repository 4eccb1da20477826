// The names of documents' sources and of collections, which are kept from session to session.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::documents {

// `name` as valid UTF-8 that prints on one line: control characters, invalid bytes and backslashes
// become \xNN. Different names stay different.
std::string PrintableName(std::string_view name);

// The source of the document in a file: its absolute path without ".", ".." and double slashes, as
// a PrintableName. Links are kept (what a link points to may change; its name is what the user
// gave), except in front of a "..", where only the file system knows what is meant.
absl::StatusOr<std::string> SourceOfPath(const std::filesystem::path& path);

// The path of a source that SourceOfPath made.
std::filesystem::path PathOfSource(std::string_view source);

// Whether a collection may be called so: a name that PrintableName leaves as it is (it is shown,
// sent and typed as one line of UTF-8), of kMaxCollectionBytes at most, and not blank.
// InvalidArgument says what is wrong. Earlier releases took other names: their documents can still
// be read, asked and deleted by them.
inline constexpr size_t kMaxCollectionBytes = 1000;
absl::Status CheckCollectionName(std::string_view name);
// The same for messages in which the name must not stand: what is wrong; empty: nothing.
std::string WrongWithCollectionName(std::string_view name);

}  // namespace fovea::documents
