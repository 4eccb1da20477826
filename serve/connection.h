// A client's connection as the HTTP library reads and writes it, with limits of time and size that
// hold for a request as a whole: a client that sends a byte now and then does not hold a thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>

#include "httplib.h"

namespace fovea::serve {

struct HttpLimits {
  // A request may take this long, and as much longer as its bytes need at the lowest rate.
  std::chrono::milliseconds read_time{30'000};
  size_t lowest_bytes_per_second = 16384;
  // For the peer to take the next bytes of a response.
  std::chrono::milliseconds write_time{30'000};
  // Between the requests of a connection.
  std::chrono::milliseconds idle_time{15'000};
  size_t max_header_bytes = 65536;
  size_t max_body_bytes = size_t{64} << 20;  // of any request
  int max_connections = 256;                 // that are served at a time; others wait
};

// Not thread-safe. Does not own the socket.
class Connection final : public httplib::Stream {
 public:
  // `stopping` outlives it: once it is true, waiting for the peer soon ends.
  Connection(socket_t socket, const HttpLimits& limits, const std::atomic<bool>* stopping)
      : socket_(socket), limits_(limits), stopping_(stopping) {}

  // Waits for the first byte of a request. False: none comes, or the server stops.
  bool AwaitRequest();

  // What the library hides of the request that is being served.
  std::string path;             // decoded
  bool is_parsed = false;       // its head was read whole
  bool is_body_unread = false;  // what follows in the connection is no request
  bool knows_chunks = true;     // the peer does: not in HTTP/1.0 (RFC 9112, section 6.1)
  bool ends_with_response = false;
  // Why reading ended: the peer was too slow, or its head too large.
  bool timed_out() const { return timed_out_; }
  bool head_too_large() const { return head_too_large_; }
  bool has_written() const { return has_written_; }

  // Whether the peer has closed its side.
  bool IsGone() const;
  // Ends the sending side and reads for a moment what the peer still sends, so that the response
  // reaches it: bytes that nobody has read would make the system reset the connection.
  void Linger();

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* bytes, size_t n_bytes) override;
  ssize_t write(const char* bytes, size_t n_bytes) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;
  // Whether `events` come before the deadline, or shortly after the server stops.
  bool WaitFor(short events, Clock::time_point deadline) const;
  // Reads what is there into buffer_, waiting until `deadline`. False: nothing came, or the end.
  bool Fill(Clock::time_point deadline);

  const socket_t socket_;
  const HttpLimits& limits_;
  const std::atomic<bool>* const stopping_;
  Clock::time_point begun_at_;  // of the request
  size_t n_read_ = 0;           // bytes of it
  bool timed_out_ = false;
  bool head_too_large_ = false;
  bool has_written_ = false;
  std::string buffer_;  // received, and from taken_ on not read yet
  size_t taken_ = 0;
};

}  // namespace fovea::serve
