#include "serve/http_server.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <thread>
#include <utility>

#include "serve/connection.h"
#include "serve/task_queue.h"

namespace fovea::serve {
namespace {

using ErrorBody = std::function<std::string(int status, const std::string& message)>;

// The connection whose request this thread serves. The library gives its handlers a request and no
// way back to where it came from.
thread_local Connection* current_connection = nullptr;

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

HttpRequest ToHttpRequest(const httplib::Request& request, std::string path) {
  HttpRequest own;
  own.method = request.method;
  own.path = std::move(path);
  for (const auto& [name, value] : request.headers) own.headers.emplace(LowerCase(name), value);
  for (const auto& [name, value] : request.params) own.query.emplace(name, value);
  return own;
}

// A name of a part of a form as its sender has it. Browsers write quotes and line ends of names as
// %22, %0D and %0A and nothing else so (the HTML standard's multipart/form-data encoding algorithm;
// RFC 7578, section 2, allows it); others put a backslash before a quote.
std::string DecodedName(std::string_view name) {
  constexpr std::pair<std::string_view, char> kEncoded[] = {
      {"%22", '"'}, {"%0D", '\r'}, {"%0A", '\n'}, {"\\\"", '"'}};
  std::string decoded;
  while (!name.empty()) {
    const auto code = std::find_if(std::begin(kEncoded), std::end(kEncoded),
                                   [&](const auto& one) { return name.starts_with(one.first); });
    const bool is_code = code != std::end(kEncoded);
    decoded.push_back(is_code ? code->second : name.front());
    name.remove_prefix(is_code ? code->first.size() : 1);
  }
  return decoded;
}

// Of every response that does not say otherwise: what a key has opened stays in no cache, and a
// browser takes it for nothing else than it is.
constexpr std::pair<const char*, const char*> kCommonHeaders[] = {
    {"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"}};

// What bodies of all requests may take of main memory. Thread-safe.
class BodyBudget {
 public:
  explicit BodyBudget(size_t max_bytes) : max_bytes_(max_bytes) {}
  bool Take(size_t n_bytes) {
    if (n_taken_.fetch_add(n_bytes) + n_bytes <= max_bytes_) return true;
    n_taken_ -= n_bytes;
    return false;
  }
  void GiveBack(size_t n_bytes) { n_taken_ -= n_bytes; }

 private:
  const size_t max_bytes_;
  std::atomic<size_t> n_taken_{0};
};

class Peer final : public HttpPeer {
 public:
  // `reader`: null where there is no body.
  Peer(Connection* connection, const httplib::Request& request,
       const httplib::ContentReader* reader, size_t max_bytes, BodyBudget* budget)
      : connection_(connection),
        request_(request),
        reader_(reader),
        max_bytes_(max_bytes),
        budget_(budget) {}
  ~Peer() override { budget_->GiveBack(n_held_); }

  absl::StatusOr<std::string> ReadBody(size_t max_bytes) override {
    if (reader_ == nullptr) return absl::InvalidArgumentError("the request has no body");
    if (request_.is_multipart_form_data()) {
      return absl::InvalidArgumentError("the body is multipart/form-data, want JSON");
    }
    max_bytes = std::min(max_bytes, max_bytes_);
    std::string body;
    absl::Status ended;
    const bool is_read = (*reader_)([&](const char* bytes, size_t n_bytes) {
      if (n_bytes > max_bytes - body.size()) {
        ended = TooLargeError(max_bytes);
        return false;
      }
      if (!budget_->Take(n_bytes)) {
        ended = absl::UnavailableError("the server is receiving too much: come again later");
        return false;
      }
      n_held_ += n_bytes;
      body.append(bytes, n_bytes);
      return true;
    });
    RETURN_IF_ERROR(Finish(is_read, ended));
    return body;
  }

  absl::Status ReadParts(size_t max_bytes, absl::FunctionRef<absl::Status(const HttpPart&)> begin,
                         absl::FunctionRef<absl::Status(std::string_view)> data) override {
    if (reader_ == nullptr || !request_.is_multipart_form_data()) {
      return absl::InvalidArgumentError("want a body of type multipart/form-data");
    }
    max_bytes = std::min(max_bytes, max_bytes_);
    size_t n_read = 0;
    absl::Status ended;
    const bool is_read = (*reader_)(
        [&](const httplib::MultipartFormData& part) {
          ended = begin({.name = DecodedName(part.name), .filename = DecodedName(part.filename)});
          return ended.ok();
        },
        [&](const char* bytes, size_t n_bytes) {
          if (n_bytes > max_bytes - n_read) {
            ended = TooLargeError(max_bytes);
            return false;
          }
          n_read += n_bytes;
          ended = data({bytes, n_bytes});
          return ended.ok();
        });
    return Finish(is_read, ended);
  }

  bool IsGone() const override { return connection_->IsGone(); }

 private:
  static absl::Status TooLargeError(size_t max_bytes) {
    return absl::ResourceExhaustedError(StrCat("the body has more than ", max_bytes, " bytes"));
  }

  absl::Status Finish(bool is_read, const absl::Status& ended) {
    if (is_read && ended.ok()) {
      connection_->is_body_unread = false;
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(ended);
    if (connection_->timed_out()) {
      return absl::DeadlineExceededError("the body did not come in time");
    }
    return absl::InvalidArgumentError("the body is broken, or ended too early");
  }

  Connection* connection_;
  const httplib::Request& request_;
  const httplib::ContentReader* reader_;
  const size_t max_bytes_;
  BodyBudget* const budget_;
  size_t n_held_ = 0;
};

bool IsNumber(const std::string& text) {
  constexpr size_t kMostDigits = 18;
  return !text.empty() && text.size() <= kMostDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

class HttpServerImpl final : public HttpServer, private httplib::Server {
 public:
  HttpServerImpl(const HttpServerOptions& options, HttpHandler handler, ErrorBody error_body)
      : options_(options), handler_(std::move(handler)), error_body_(std::move(error_body)) {
    limits_.read_time = options.read_time;
    limits_.max_body_bytes = options.max_body_bytes;
    limits_.max_connections = options.max_connections;
    new_task_queue = [this] {
      return new BoundedTaskQueue(static_cast<size_t>(limits_.max_connections));
    };
    set_payload_max_length(
        std::numeric_limits<size_t>::max());  // CheckFraming and Peer know better
    // Other sockets of the same port would get a part of the connections.
    set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    set_tcp_nodelay(true);
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      return BeforeBody(request, response) ? HandlerResponse::Handled : HandlerResponse::Unhandled;
    });
    const HandlerWithContentReader with_body =
        [this](const httplib::Request& request, httplib::Response& response,
               const httplib::ContentReader& reader) { Answer(request, &reader, &response); };
    // Every path is "/" to the library (see Serve).
    Post("/", with_body);
    Put("/", with_body);
    Patch("/", with_body);
    Delete("/", with_body);
    const HandlerWithResponse on_error = [this](const httplib::Request&,
                                                httplib::Response& response) {
      return FillError(response) ? HandlerResponse::Handled : HandlerResponse::Unhandled;
    };
    set_error_handler(on_error);
    set_exception_handler([](const httplib::Request&, httplib::Response& response,
                             std::exception_ptr) { response.status = 500; });
  }

  absl::Status Bind() {
    addrinfo hints = {};
    hints.ai_flags = AI_PASSIVE;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* addresses = nullptr;
    const int error = getaddrinfo(options_.host.c_str(), nullptr, &hints, &addresses);
    if (error != 0) {
      return absl::InvalidArgumentError(StrCat("host ", options_.host, ": ", gai_strerror(error),
                                               "; want an address such as ",
                                               "127.0.0.1, or 0.0.0.0 for all of this machine"));
    }
    freeaddrinfo(addresses);
    port_ = options_.port;
    const bool is_bound = options_.port == 0 ? (port_ = bind_to_any_port(options_.host)) > 0
                                             : bind_to_port(options_.host, options_.port);
    if (is_bound) {
      // The library lets five connections wait for its thread: of a crowd that comes at once the
      // rest would come again after a second.
      constexpr int kBacklog = 1024;
      ::listen(svr_sock_, kBacklog);
      return absl::OkStatus();
    }
    return absl::UnavailableError(StrCat("cannot listen on ", options_.host, " port ",
                                         options_.port, ": another program does, or this user may ",
                                         "not; choose another with --port"));
  }

  int port() const override { return port_; }
  void Run() override {
    has_begun_ = true;
    if (!stopping_) listen_after_bind();
    has_ended_ = true;
  }
  void Stop() override {
    stopping_ = true;
    // The library can be stopped only once it accepts connections.
    while (has_begun_ && !has_ended_ && !is_running()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    stop();
  }

 private:
  // Takes the place of the library's own loop over the requests of a connection.
  bool process_and_close_socket(socket_t socket) override {
    Connection connection(socket, limits_, &stopping_);
    current_connection = &connection;
    try {
      Serve(&connection);
    } catch (...) {  // out of memory: the connection ends
    }
    current_connection = nullptr;
    close(socket);
    return true;
  }

  void Serve(Connection* connection) {
    bool goes_on = true;
    while (goes_on && connection->AwaitRequest()) {
      bool is_closed = false;
      const bool is_sound = process_request(
          *connection, /*close_connection=*/stopping_, is_closed,
          [connection](httplib::Request& request) {
            connection->is_parsed = true;
            connection->knows_chunks = request.version != "HTTP/1.0";
            connection->path = std::move(request.path);
            request.path = "/";  // no pattern is ever matched with what clients send
            request.ranges.clear();
          });
      if (!is_sound && !connection->has_written()) {
        WriteLoneError(connection);
        goes_on = false;
      }
      goes_on = goes_on && is_sound && !is_closed && connection->is_parsed &&
                !connection->is_body_unread && !connection->timed_out() &&
                !connection->ends_with_response && !stopping_;
    }
    if (connection->has_written()) connection->Linger();
  }

  // A request of which so little came that the library says nothing.
  void WriteLoneError(Connection* connection) const {
    const bool is_large = connection->head_too_large();
    if (!is_large && !connection->timed_out()) return;  // it went away
    const std::string body = error_body_(is_large ? 431 : 408, Reason(is_large ? 431 : 408));
    std::string common;
    for (const auto& [name, value] : kCommonHeaders) common += StrCat(name, ": ", value, "\r\n");
    connection->write_format(
        "HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json\r\n%s"
        "Content-Length: %d\r\n\r\n%s",
        is_large ? "431 Request Header Fields Too Large" : "408 Request Timeout", common.c_str(),
        static_cast<int>(body.size()), body.c_str());
  }

  static std::string Reason(int status) {
    switch (status) {
      case 400:
        return "this is not a well-formed HTTP request";
      case 404:
        return "there is nothing of this name";
      case 408:
        return "the request did not come in time";
      case 414:
        return "the address is too long";
      case 431:
        return "the head of the request is too large";
      case 500:
        return "the server failed at this request";
      default:
        return "the request cannot be served";
    }
  }

  // Gives errors of the library's a body. False: there is one.
  bool FillError(httplib::Response& response) const {
    const Connection& connection = *current_connection;
    if (!connection.is_parsed) {
      if (connection.timed_out()) response.status = 408;
      if (connection.head_too_large()) response.status = 431;
      response.set_header("Connection", "close");
    }
    if (!response.body.empty() || response.content_length_ > 0) return false;
    SetCommonHeaders(&response);
    response.set_content(error_body_(response.status, Reason(response.status)), "application/json");
    return true;
  }

  // What the length of the body says about the request. 0: nothing wrong.
  int CheckFraming(const httplib::Request& request, std::string* message, bool* has_body) const {
    const bool is_chunked = request.has_header("Transfer-Encoding");
    const size_t n_lengths = request.get_header_value_count("Content-Length");
    *has_body = is_chunked || n_lengths > 0;
    if (is_chunked) {
      if (n_lengths > 0 || request.get_header_value_count("Transfer-Encoding") > 1 ||
          LowerCase(request.get_header_value("Transfer-Encoding")) != "chunked") {
        *message = "the body's length is given in more than one way, or in one that is not known";
        return 400;
      }
      return 0;
    }
    if (n_lengths == 0) return 0;
    const std::string length = request.get_header_value("Content-Length");
    if (n_lengths > 1 || !IsNumber(length)) {
      *message = "Content-Length is not one number";
      return 400;
    }
    if (std::stoull(length) > limits_.max_body_bytes) {
      *message = StrCat("the body has ", length, " bytes, at most ", limits_.max_body_bytes,
                        " are allowed");
      return 413;
    }
    *has_body = std::stoull(length) > 0;
    return 0;
  }

  // Answers requests without a body, and those whose body is not worth reading.
  bool BeforeBody(const httplib::Request& request, httplib::Response& response) {
    std::string message;
    bool has_body = false;
    const int status = CheckFraming(request, &message, &has_body);
    current_connection->is_body_unread = has_body;
    if (status != 0) {
      Fill({.status = status, .body = error_body_(status, message)}, &response);
      return true;
    }
    const bool may_have_body = request.method == "POST" || request.method == "PUT" ||
                               request.method == "PATCH" || request.method == "DELETE";
    if (has_body && may_have_body) return false;
    Answer(request, nullptr, &response);
    return true;
  }

  void Answer(const httplib::Request& request, const httplib::ContentReader* reader,
              httplib::Response* response) {
    Peer peer(current_connection, request, reader, limits_.max_body_bytes, &budget_);
    Fill(handler_(ToHttpRequest(request, std::move(current_connection->path)), peer), response);
  }

  static void SetCommonHeaders(httplib::Response* response) {
    for (const auto& [name, value] : kCommonHeaders) {
      if (!response->has_header(name)) response->set_header(name, value);
    }
  }

  // Puts what a handler returned into the library's response.
  static void Fill(HttpResponse own, httplib::Response* response) {
    response->status = own.status;
    for (const auto& [name, value] : own.headers) response->set_header(name, value);
    SetCommonHeaders(response);
    // What follows in the connection cannot be told from the body.
    if (current_connection->is_body_unread) response->set_header("Connection", "close");
    if (!own.stream) {
      response->set_content(own.body, own.content_type);
      return;
    }
    const auto provider = [stream = std::move(own.stream)](size_t, httplib::DataSink& sink) {
      bool is_open = true;
      stream([&](std::string_view piece) {
        is_open = is_open && sink.write(piece.data(), piece.size());
        return is_open;
      });
      if (is_open) sink.done();
      return is_open;
    };
    if (current_connection->knows_chunks) {
      response->set_chunked_content_provider(own.content_type, provider);
    } else {
      current_connection->ends_with_response = true;
      response->set_header("Connection", "close");
      response->set_content_provider(own.content_type, provider);
    }
  }

  const HttpServerOptions options_;
  HttpLimits limits_;
  BodyBudget budget_{options_.max_held_bytes};
  const HttpHandler handler_;
  const ErrorBody error_body_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_begun_{false};  // Run
  std::atomic<bool> has_ended_{false};
  int port_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpServerOptions& options,
                                                               HttpHandler handler,
                                                               ErrorBody error_body) {
  auto server =
      std::make_unique<HttpServerImpl>(options, std::move(handler), std::move(error_body));
  RETURN_IF_ERROR(server->Bind());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace fovea::serve
