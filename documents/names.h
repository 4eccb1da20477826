// Sources: the names that documents are known by, from session to session.
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

}  // namespace fovea::documents
