// A regular file opened for reading, which notices when its content changes between readings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/hash.h"
#include "base/status.h"

struct stat;  // <sys/stat.h>

namespace fovea::documents {

// Owns the descriptor; what renaming puts in the file's place is not seen. Not thread-safe. `name`
// (the document's source) starts every message.
class InputFile {
 public:
  // InvalidArgument for a folder, FIFO, socket or device (never blocks on one); NotFound and
  // PermissionDenied as the system says.
  static absl::StatusOr<std::unique_ptr<InputFile>> Open(const std::filesystem::path& path,
                                                         std::string name);
  // Takes over `descriptor`, of a regular file that is read from its start.
  static absl::StatusOr<std::unique_ptr<InputFile>> FromDescriptor(int descriptor,
                                                                   std::string name);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& name() const { return name_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // Of the next byte that Read gives.
  uint64_t offset() const { return offset_; }

  // Appends up to `max_bytes` to *out; nothing appended = the end. Aborted when the file's size or
  // time of change is not what it was when it was opened (checked at the end and by Rewind), or
  // when a complete reading gave other bytes than the one before.
  absl::Status Read(size_t max_bytes, std::string* out);
  absl::Status Rewind();
  absl::Status CheckUnchanged() const;
  // The whole file from its start; ResourceExhausted when it is larger than `max_bytes`.
  absl::StatusOr<std::string> ReadAll(size_t max_bytes, std::string_view limit_name);

 private:
  InputFile(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}
  absl::Status Stat(struct stat* status) const;
  absl::Status Changed() const;

  int descriptor_;
  std::string name_;
  uint64_t size_bytes_ = 0;
  int64_t modified_ns_ = 0;
  uint64_t offset_ = 0;
  // Of the bytes read since the start. A file system's clock is coarse (milliseconds): only the
  // content tells a change right after the opening.
  FastHasher hasher_;
  bool has_hash_ = false;
  Hash128 hash_;  // of the first complete reading
};

}  // namespace fovea::documents
