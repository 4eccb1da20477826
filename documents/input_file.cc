#include "documents/input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/file.h"

namespace fovea::documents {

absl::StatusOr<std::unique_ptr<InputFile>> InputFile::Open(const std::filesystem::path& path,
                                                           std::string name) {
  if (path.native().find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(StrCat(name, ": a path cannot hold a NUL byte"));
  }
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait forever.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) {
    // ENXIO: a socket, or a device without its driver.
    if (errno == ENXIO) {
      return absl::InvalidArgumentError(StrCat(name, ": a socket or device, want a regular file"));
    }
    return ErrnoToStatus(errno, "open", name);
  }
  return FromDescriptor(descriptor, std::move(name));
}

absl::StatusOr<std::unique_ptr<InputFile>> InputFile::FromDescriptor(int descriptor,
                                                                     std::string name) {
  std::unique_ptr<InputFile> file(new InputFile(descriptor, std::move(name)));
  struct stat status;
  RETURN_IF_ERROR(file->Stat(&status));
  if (S_ISDIR(status.st_mode)) {
    return absl::InvalidArgumentError(
        StrCat(file->name_, ": a folder, want a file: pass --recursive to take its files"));
  }
  if (!S_ISREG(status.st_mode)) {
    const char* kind = S_ISFIFO(status.st_mode)   ? "a FIFO"
                       : S_ISSOCK(status.st_mode) ? "a socket"
                                                  : "a device";
    return absl::InvalidArgumentError(
        StrCat(file->name_, ": ", kind,
               ", want a regular file: pass - to read what another program writes"));
  }
  file->size_bytes_ = static_cast<uint64_t>(status.st_size);
  file->modified_ns_ = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec;
  return file;
}

InputFile::~InputFile() { ::close(descriptor_); }

absl::Status InputFile::Stat(struct stat* status) const {
  if (::fstat(descriptor_, status) != 0) return ErrnoToStatus(errno, "stat", name_);
  return absl::OkStatus();
}

absl::Status InputFile::Changed() const {
  return absl::AbortedError(
      StrCat(name_, ": changed while it was read: ingest it again when nothing writes to it"));
}

absl::Status InputFile::CheckUnchanged() const {
  struct stat status;
  RETURN_IF_ERROR(Stat(&status));
  const int64_t modified_ns =
      status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec;
  if (static_cast<uint64_t>(status.st_size) != size_bytes_ || modified_ns != modified_ns_) {
    return Changed();
  }
  return absl::OkStatus();
}

absl::Status InputFile::Read(size_t max_bytes, std::string* out) {
  const size_t before = out->size();
  // Never more than the size at opening: a file that grows ends in an error, not in a long read.
  const uint64_t left = size_bytes_ - offset_;
  const size_t want = static_cast<size_t>(std::min<uint64_t>(max_bytes, left));
  out->resize(before + want);
  size_t got = 0;
  while (got < want) {
    const ssize_t n = ::pread(descriptor_, out->data() + before + got, want - got,
                              static_cast<off_t>(offset_ + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      out->resize(before);
      return ErrnoToStatus(error, "read", name_);
    }
    if (n == 0) {
      out->resize(before);
      return Changed();
    }
    got += static_cast<size_t>(n);
  }
  offset_ += got;
  hasher_.Update(std::string_view(*out).substr(before));
  if (offset_ == size_bytes_) {
    RETURN_IF_ERROR(CheckUnchanged());
    const Hash128 hash = hasher_.Finish();
    if (has_hash_ && hash != hash_) return Changed();
    has_hash_ = true;
    hash_ = hash;
  }
  return absl::OkStatus();
}

absl::Status InputFile::Rewind() {
  RETURN_IF_ERROR(CheckUnchanged());
  offset_ = 0;
  hasher_ = FastHasher();
  return absl::OkStatus();
}

absl::StatusOr<std::string> InputFile::ReadAll(size_t max_bytes, std::string_view limit_name) {
  RETURN_IF_ERROR(Rewind());
  if (size_bytes_ > max_bytes) {
    return absl::ResourceExhaustedError(StrCat(name_, ": ", size_bytes_, " bytes, and ", limit_name,
                                               " may have at most ", max_bytes,
                                               ": split it into smaller files"));
  }
  std::string bytes;
  RETURN_IF_ERROR(Read(static_cast<size_t>(size_bytes_), &bytes));
  return bytes;
}

}  // namespace fovea::documents
