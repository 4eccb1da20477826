#include "cli/streams.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "cli/interrupt.h"

namespace fovea::cli {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr size_t kReadBytes = size_t{64} << 10;

}  // namespace

bool OccupyStandardDescriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // open takes the lowest free number, which is this one: those below are open by now.
    const int direction = descriptor == STDOUT_FILENO ? O_RDONLY : O_WRONLY;
    if (open("/dev/null", direction) != descriptor) return false;
  }
  return true;
}

absl::StatusOr<bool> LineReader::Next(std::string* line) {
  size_t searched = begin_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos) {
      line->assign(buffer_, begin_, end - begin_);
      begin_ = end + 1;
      return true;
    }
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    if (at_end_) {
      line->swap(buffer_);
      buffer_.clear();
      return !line->empty();
    }
    if (buffer_.size() > kMaxLineBytes) {
      return absl::ResourceExhaustedError(
          StrCat("standard input: a line of more than ", kMaxLineBytes, " bytes"));
    }
    RETURN_IF_ERROR(Read());
  }
}

absl::Status LineReader::Read() {
  std::array<char, kReadBytes> piece;
  ssize_t n = 0;
  while ((n = read(file_descriptor_, piece.data(), piece.size())) < 0) {
    if (errno != EINTR) {
      return absl::InternalError(StrCat("standard input: ", std::strerror(errno)));
    }
    if (Interrupted()) return absl::CancelledError("interrupted");
  }
  if (n == 0) at_end_ = true;
  buffer_.append(piece.data(), static_cast<size_t>(n));
  return absl::OkStatus();
}

bool LineReader::NextIsReady() {
  size_t searched = begin_;
  while (buffer_.find('\n', searched) == std::string::npos) {
    searched = buffer_.size();
    if (at_end_ || buffer_.size() - begin_ > kMaxLineBytes) return true;
    pollfd input{.fd = file_descriptor_, .events = POLLIN, .revents = 0};
    if (poll(&input, 1, 0) <= 0) return false;
    if (!Read().ok()) return true;  // Next meets the same
  }
  return true;
}

absl::Status WriteOutput(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EPIPE) return absl::AbortedError("standard output was closed");
      return absl::InternalError(
          StrCat("standard output: results cannot be written: ", std::strerror(errno)));
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

}  // namespace fovea::cli
