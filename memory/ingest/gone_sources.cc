#include "memory/ingest/gone_sources.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "documents/names.h"

namespace fovea::memory {
namespace {

// Whether `source` is `path`, or a file below it, or a record of it.
bool IsOf(std::string_view source, std::string_view path) {
  if (!source.starts_with(path)) return false;
  return source.size() == path.size() || path.ends_with('/') || source[path.size()] == '/' ||
         source[path.size()] == '#';
}

bool IsThere(std::string_view source) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(documents::PathOfSource(source), error);
  // What cannot be looked at may be there.
  return status.type() != std::filesystem::file_type::not_found;
}

}  // namespace

bool GoneSources::IsGone(const std::string& source) const {
  const auto is_of = [&](const std::string& path) { return IsOf(source, path); };
  if (std::none_of(roots_.begin(), roots_.end(), is_of)) return false;
  if (std::any_of(unread_.begin(), unread_.end(), is_of)) return false;
  // The source itself is a file's, or what is in front of one of its "#".
  for (size_t end = source.size(); end != std::string::npos && end > 0;
       end = source.rfind('#', end - 1)) {
    const std::string file = source.substr(0, end);
    if (read_.contains(file)) return true;
    if (IsThere(file)) return false;
  }
  return true;
}

}  // namespace fovea::memory
