#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "absl/cleanup/cleanup.h"

namespace fovea {

absl::Status ErrnoToStatus(int error, std::string_view action, const std::filesystem::path& path) {
  const std::string message =
      StrCat(path.string(), ": cannot ", action, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(StrCat(message, "; change its permissions or owner"));
    case EROFS:
      return absl::PermissionDeniedError(StrCat(message, "; choose a place that can be written"));
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(StrCat(message, "; free some space"));
    case EFBIG:
      return absl::ResourceExhaustedError(
          StrCat(message, "; this file system or `ulimit -f` allows no larger file"));
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoToStatus(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  const char* data = nullptr;
  if (size > 0) {
    void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) return ErrnoToStatus(errno, "map", path);
    data = static_cast<const char*>(address);
  }
  return std::unique_ptr<MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_bytes_);
}

void MappedFile::WillRead(std::string_view part) const {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto begin = static_cast<size_t>(part.data() - data_) / page * page;
  const auto end = static_cast<size_t>(part.data() - data_) + part.size();
  // Only advice: without it, it works as well.
  madvise(const_cast<char*>(data_) + begin, end - begin, MADV_WILLNEED);
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t max_size_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  std::string content;
  size_t used = 0;
  while (true) {
    // Read in growing steps instead of trusting st_size: pipes and /proc files have none.
    if (used == content.size()) content.resize(std::max<size_t>(64 << 10, content.size() * 2));
    const ssize_t n = read(fd, content.data() + used, content.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoToStatus(errno, "read", path);
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (used > max_size_bytes) {
      return absl::ResourceExhaustedError(StrCat(path.string(), ": larger than the limit of ",
                                                 max_size_bytes, " bytes for this kind of file"));
    }
  }
  content.resize(used);
  return content;
}

absl::Status SyncPath(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoToStatus(errno, "open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  if (fsync(fd) != 0) return ErrnoToStatus(errno, "fsync", path);
  return absl::OkStatus();
}

absl::Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::path temporary = path;
  temporary += StrCat(".tmp", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoToStatus(errno, "create", temporary);
  absl::Cleanup remove_temporary = [&] { unlink(temporary.c_str()); };
  {
    absl::Cleanup close_fd = [fd] { close(fd); };
    while (!bytes.empty()) {
      const ssize_t n = write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoToStatus(errno, "write", temporary);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    if (fsync(fd) != 0) return ErrnoToStatus(errno, "fsync", temporary);
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoToStatus(errno, "rename to", path);
  std::move(remove_temporary).Cancel();
  const std::filesystem::path parent = path.parent_path();
  return SyncPath(parent.empty() ? "." : parent);
}

absl::Status CreateDirectories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoToStatus(error.value(), "create folder", path);
  return absl::OkStatus();
}

}  // namespace fovea
