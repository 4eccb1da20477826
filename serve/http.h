// Requests and responses as the server's handlers see them, without the library that speaks HTTP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::serve {

// All but the body.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // decoded, without the query: "/v1/models"
  // Names in lower case; of several headers of one name the first.
  std::map<std::string, std::string, std::less<>> headers;
  std::map<std::string, std::string, std::less<>> query;  // decoded; the first of each name

  // Empty where there is none.
  std::string Header(std::string_view name) const {
    const auto header = headers.find(name);
    return header == headers.end() ? "" : header->second;
  }
  std::string Query(std::string_view name) const {
    const auto value = query.find(name);
    return value == query.end() ? "" : value->second;
  }
};

// A part of a multipart body, all but its content.
struct HttpPart {
  std::string name;      // of the form's field; both decoded
  std::string filename;  // as the client says: never to be used as a path
};

// Who sent the request: gives its body, once, piece by piece. Errors of reading:
//   ResourceExhausted  larger than allowed (status 413)
//   DeadlineExceeded   it did not come in time (408)
//   InvalidArgument    no body of the wanted kind, or a broken one (400)
//   Unavailable        too much is being received from others (503)
class HttpPeer {
 public:
  virtual ~HttpPeer() = default;
  // The whole body, of at most `max_bytes`.
  virtual absl::StatusOr<std::string> ReadBody(size_t max_bytes) = 0;
  // The parts of a multipart/form-data body, of at most `max_bytes` together: `begin` at the head
  // of each, then `data` for its content. What they return other than OK ends the reading and is
  // returned.
  virtual absl::Status ReadParts(size_t max_bytes,
                                 absl::FunctionRef<absl::Status(const HttpPart&)> begin,
                                 absl::FunctionRef<absl::Status(std::string_view)> data) = 0;
  // Whether it has gone away: nobody waits for the response any more.
  virtual bool IsGone() const = 0;
};

// False once the peer takes no more.
using HttpWrite = std::function<bool(std::string_view)>;

// Without a header Cache-Control it is not to be kept ("no-store").
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  // Where it is set the body is what it writes, chunk by chunk, each sent at once.
  std::function<void(const HttpWrite& write)> stream = {};
};

// Called by any number of threads at a time. What it throws becomes status 500.
using HttpHandler = std::function<HttpResponse(const HttpRequest&, HttpPeer&)>;

}  // namespace fovea::serve
