#include "serve/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace fovea::serve {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kBufferBytes = 16384;
constexpr milliseconds kLingerTime(500);
constexpr size_t kLingerBytes = size_t{1} << 20;

void ToIpAndPort(const sockaddr_storage& address, std::string* ip, int* port) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = nullptr;
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    bytes = &v4->sin_addr;
    *port = ntohs(v4->sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    bytes = &v6->sin6_addr;
    *port = ntohs(v6->sin6_port);
  }
  if (bytes != nullptr &&
      inet_ntop(address.ss_family, bytes, text.data(), text.size()) != nullptr) {
    *ip = text.data();
  }
}

}  // namespace

bool Connection::WaitFor(short events, Clock::time_point deadline) const {
  constexpr milliseconds kStep(100);
  constexpr milliseconds kGrace(500);
  bool is_cut = false;
  for (;;) {
    if (!is_cut && stopping_->load()) {
      is_cut = true;
      deadline = std::min(deadline, Clock::now() + kGrace);
    }
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    const auto step = std::clamp(left, milliseconds(0), kStep);
    pollfd waited = {.fd = socket_, .events = events, .revents = 0};
    const int n = poll(&waited, 1, static_cast<int>(step.count()));
    if (n > 0) return true;
    if (n == 0 && Clock::now() >= deadline) return false;
    if (n < 0 && errno != EINTR) return false;
  }
}

bool Connection::Fill(Clock::time_point deadline) {
  if (!WaitFor(POLLIN, deadline)) {
    timed_out_ = true;
    return false;
  }
  buffer_.resize(kBufferBytes);
  taken_ = 0;
  ssize_t n = 0;
  do {
    n = recv(socket_, buffer_.data(), buffer_.size(), 0);
  } while (n < 0 && errno == EINTR);
  buffer_.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
  return n > 0;
}

bool Connection::AwaitRequest() {
  path.clear();
  is_parsed = is_body_unread = timed_out_ = head_too_large_ = has_written_ = false;
  n_read_ = 0;
  // In steps, so that a stop is noticed.
  constexpr milliseconds kStep(100);
  const Clock::time_point idle_until = Clock::now() + limits_.idle_time;
  while (taken_ == buffer_.size()) {
    if (stopping_->load() || Clock::now() >= idle_until) return false;
    timed_out_ = false;
    if (!Fill(std::min(idle_until, Clock::now() + kStep)) && !timed_out_) return false;
  }
  timed_out_ = false;
  begun_at_ = Clock::now();
  return true;
}

ssize_t Connection::read(char* bytes, size_t n_bytes) {
  if (!is_parsed && n_read_ >= limits_.max_header_bytes) {
    head_too_large_ = true;
    return -1;
  }
  const milliseconds of_bytes(1000 * n_read_ /
                              std::max<size_t>(limits_.lowest_bytes_per_second, 1));
  const Clock::time_point deadline = begun_at_ + limits_.read_time + of_bytes;
  if (Clock::now() >= deadline) {
    timed_out_ = true;
    return -1;
  }
  if (taken_ == buffer_.size() && !Fill(deadline)) return timed_out_ ? -1 : 0;
  const size_t n = std::min(n_bytes, buffer_.size() - taken_);
  std::memcpy(bytes, buffer_.data() + taken_, n);
  taken_ += n;
  n_read_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t Connection::write(const char* bytes, size_t n_bytes) {
  has_written_ = true;
  if (!WaitFor(POLLOUT, Clock::now() + limits_.write_time)) return -1;
  ssize_t n = 0;
  do {
    n = send(socket_, bytes, n_bytes, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n;
}

bool Connection::IsGone() const {
  pollfd waited = {.fd = socket_, .events = POLLRDHUP, .revents = 0};
  return poll(&waited, 1, 0) > 0;
}

void Connection::Linger() {
  shutdown(socket_, SHUT_WR);
  const Clock::time_point deadline = Clock::now() + kLingerTime;
  for (size_t n = 0; n < kLingerBytes && Fill(deadline); n += buffer_.size()) {
  }
}

bool Connection::is_readable() const {
  return taken_ < buffer_.size() || WaitFor(POLLIN, Clock::now() + limits_.read_time);
}

bool Connection::is_writable() const { return WaitFor(POLLOUT, Clock::now() + limits_.write_time); }

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getpeername(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    ToIpAndPort(address, &ip, &port);
  }
}

void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    ToIpAndPort(address, &ip, &port);
  }
}

}  // namespace fovea::serve
