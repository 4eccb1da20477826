// Files as fovea needs them: read whole, mapped read-only, and replaced atomically
// (temporary name, fsync, rename, fsync of the folder).
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea {

// A read-only mapping of a whole file. Immutable and thread-safe; the pages live as long as
// the object. An empty file maps to an empty view. The file must not be truncated meanwhile:
// fovea only maps files that it replaces by rename, and the user's weights.
class MappedFile {
 public:
  // NotFound, PermissionDenied, or Internal with the path and the system's reason.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_bytes_}; }
  const std::filesystem::path& path() const { return path_; }
  // Begins to read `part` of bytes() from the disk, where it is not in memory: all of it at once,
  // which is faster than as the pages are touched.
  void WillRead(std::string_view part) const;

 private:
  MappedFile(std::filesystem::path path, const char* data, size_t size_bytes)
      : path_(std::move(path)), data_(data), size_bytes_(size_bytes) {}
  std::filesystem::path path_;
  const char* data_;
  size_t size_bytes_;
};

// The whole file. ResourceExhausted when it is larger than `max_size_bytes`.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     size_t max_size_bytes = size_t{1} << 32);

// Replaces `path` with `bytes` durably: after an OK the new content survives a power cut, after
// an error or a crash the old content is intact.
absl::Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes);

// fsyncs a file, or a folder (which makes renames in it durable).
absl::Status SyncPath(const std::filesystem::path& path);

// mkdir -p, as a Status.
absl::Status CreateDirectories(const std::filesystem::path& path);

// The errno of a failed call on `path` as a Status: ENOENT → NotFound, EACCES and EROFS →
// PermissionDenied, ENOSPC, EDQUOT and EFBIG → ResourceExhausted, else Internal.
absl::Status ErrnoToStatus(int error, std::string_view action, const std::filesystem::path& path);

}  // namespace fovea
