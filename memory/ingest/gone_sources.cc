#include "memory/ingest/gone_sources.h"

#include <filesystem>
#include <system_error>

#include "documents/names.h"
#include "documents/text_document.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;

// Calls `visit` with each file that `source` may be of, the longest first: itself, and what is in
// front of a "#" where that may hold records. True once `visit` is.
template <typename Visit>
bool AnyFileOf(std::string_view source, Visit visit) {
  if (visit(source)) return true;
  for (size_t end = source.rfind('#'); end != source.npos && end > 0;
       end = source.rfind('#', end - 1)) {
    const std::string_view file = source.substr(0, end);
    if (documents::MayHoldRecords(file) && visit(file)) return true;
  }
  return false;
}

// Whether `source` is one of `paths`, or of a file in one, or a record of one.
template <typename Paths>
bool IsOfAny(std::string_view source, const Paths& paths) {
  return AnyFileOf(source, [&](std::string_view file) {
    if (paths.contains(file)) return true;
    for (size_t end = file.rfind('/'); end != file.npos;
         end = end == 0 ? file.npos : file.rfind('/', end - 1)) {
      // A folder's name may end with its slash.
      if (paths.contains(file.substr(0, end)) || paths.contains(file.substr(0, end + 1))) {
        return true;
      }
    }
    return false;
  });
}

// Whether a file is there that may be read, or cannot be looked at.
bool IsFile(std::string_view source) {
  const fs::path path = documents::PathOfSource(source);
  if (path.native().find('\0') != std::string::npos) return false;  // of a record's id
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  // An id may be longer than any name.
  if (error == std::errc::filename_too_long) return false;
  return type == fs::file_type::regular || type == fs::file_type::none ||
         type == fs::file_type::unknown;
}

}  // namespace

bool GoneSources::IsGone(const std::string& source) const {
  if (!IsOfAny(source, roots_) || IsOfAny(source, unread_)) return false;
  if (IsOfAny(source, left_out_)) return true;
  // The first of its files that says something.
  bool is_there = false;
  AnyFileOf(source, [&](std::string_view file) {
    if (read_.contains(file)) return true;
    is_there = IsFile(file);
    return is_there;
  });
  return !is_there;
}

}  // namespace fovea::memory
