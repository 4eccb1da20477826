// Titles of documents that do not carry one in a field of their format.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fovea::documents {

inline constexpr size_t kMaxTitleBytes = 300;

// From the first kilobytes of a plain text: the line "Title: …" of Project Gutenberg's books,
// among the first 40 lines. Empty when there is none.
std::string PlainTextTitle(std::string_view head);

// From the first kilobytes of a Markdown text: `title:` of a front matter, else the first heading
// (# or underlined) outside of fenced code. Empty when there is none.
std::string MarkdownTitle(std::string_view head);

// The file's name without its extension.
std::string FileTitle(const std::filesystem::path& path);
// The file's name.
std::string FileNameTitle(const std::filesystem::path& path);

}  // namespace fovea::documents
