// HTTP/1.1 by cpp-httplib: listens, reads requests within limits, hands them to one handler, and
// writes what it returns. What a request means is not known here.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "serve/http.h"

namespace fovea::serve {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: any that is free
  // A request may take this long, and as much longer as its bytes need at 16 KiB/s.
  std::chrono::milliseconds read_time{30'000};
  size_t max_body_bytes = size_t{64} << 20;
  // Of bodies that are held in memory at a time, all together.
  size_t max_held_bytes = size_t{512} << 20;
  int max_connections = 256;  // served at a time; others wait
};

// Thread-safe.
class HttpServer {
 public:
  // Binds and listens. Errors that this finds in a request are answered by it: their bodies are
  // what `error_body` makes of a status and a message. InvalidArgument for a host that is none,
  // Unavailable where the port is taken or must not be used.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(
      const HttpServerOptions& options, HttpHandler handler,
      std::function<std::string(int status, const std::string& message)> error_body);
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  // Serves until Stop; what is being answered then is answered to its end. Once.
  virtual void Run() = 0;
  // No new connections, no further requests on those that there are.
  virtual void Stop() = 0;
};

}  // namespace fovea::serve
