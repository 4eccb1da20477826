#include "documents/names.h"

#include <algorithm>
#include <system_error>

#include "documents/utf8.h"

namespace fovea::documents {

std::string PrintableName(std::string_view name) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string printable;
  const auto escape = [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    printable += "\\x";
    printable.push_back(kDigits[byte >> 4]);
    printable.push_back(kDigits[byte & 15]);
  };
  while (!name.empty()) {
    const std::string_view valid = name.substr(0, ScanUtf8(name).valid_bytes);
    for (const char c : valid) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || c == '\\') {
        escape(c);
      } else {
        printable.push_back(c);
      }
    }
    name.remove_prefix(valid.size());
    if (!name.empty()) {
      escape(name.front());
      name.remove_prefix(1);
    }
  }
  return printable;
}

absl::StatusOr<std::string> SourceOfPath(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (!error && std::find(absolute.begin(), absolute.end(), "..") != absolute.end()) {
    const std::filesystem::path last = absolute.filename();
    if (last == ".." || last == "." || last.empty()) {
      absolute = std::filesystem::weakly_canonical(absolute, error);
    } else {
      absolute = std::filesystem::weakly_canonical(absolute.parent_path(), error) / last;
    }
  }
  if (error) {
    return absl::NotFoundError(
        StrCat(PrintableName(path.native()), ": cannot find its absolute path: ", error.message()));
  }
  return PrintableName(absolute.lexically_normal().native());
}

std::filesystem::path PathOfSource(std::string_view source) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
  std::string path;
  for (size_t i = 0; i < source.size(); ++i) {
    // A backslash of the path itself is escaped, too.
    if (source[i] == '\\' && i + 3 < source.size() && source[i + 1] == 'x') {
      path.push_back(static_cast<char>(digit(source[i + 2]) * 16 + digit(source[i + 3])));
      i += 3;
    } else {
      path.push_back(source[i]);
    }
  }
  return path;
}

namespace {

// Of valid UTF-8: whether it has a character that ends a line, changes the direction of what stands
// beside it, or is not seen. (Joiners are none of these: words of some scripts are spelt with
// them.)
bool HasInvisibleCharacter(std::string_view text) {
  const auto is_between = [](std::string_view c, std::string_view first, std::string_view last) {
    return c.size() == first.size() && c >= first && c <= last;
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    const std::string_view c = text.substr(i, end - i);
    if (is_between(c, "\u0080", "\u009F") ||                // C1 controls
        is_between(c, "\u2028", "\u202E") ||                // separators, directions
        is_between(c, "\u2060", "\u206F") ||                // invisible operators, directions
        c == "\u200B" || c == "\u200E" || c == "\u200F" ||  // zero width space, directions
        c == "\uFEFF") {
      return true;
    }
    i = end;
  }
  return false;
}

}  // namespace

std::string WrongWithCollectionName(std::string_view name) {
  if (IsBlank(name)) return "the name of a collection is empty";
  if (name.size() > kMaxCollectionBytes) {
    return StrCat("want a name of at most ", kMaxCollectionBytes, " bytes; this one has ",
                  name.size());
  }
  if (PrintableName(name) != name) {
    return "want a name in UTF-8 without control characters (such as line ends) and backslashes";
  }
  if (HasInvisibleCharacter(name)) {
    return "want a name without line ends and characters that cannot be seen";
  }
  return "";
}

absl::Status CheckCollectionName(std::string_view name) {
  const std::string wrong = WrongWithCollectionName(name);
  if (wrong.empty()) return absl::OkStatus();
  if (IsBlank(name)) return absl::InvalidArgumentError(wrong);
  const std::string shown = name.size() <= kMaxCollectionBytes
                                ? PrintableName(name)
                                : StrCat(PrintableName(Utf8Prefix(name, 60)), "…");
  return absl::InvalidArgumentError(StrCat("collection \"", shown, "\": ", wrong));
}

}  // namespace fovea::documents
