#include "serve/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "serve/server.h"
#include "serve/service.h"

namespace fovea::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Says what it was asked.
HttpResponse Echo(const HttpRequest& request, HttpPeer& peer) {
  if (request.path == "/throw") throw std::bad_alloc();
  if (request.path == "/unread") return {.status = 401, .body = "no"};
  if (request.path == "/stream") {
    HttpResponse response;
    response.stream = [](const HttpWrite& write) {
      for (const char* piece : {"one", "two"}) write(piece);
    };
    return response;
  }
  std::string text = StrCat(request.method, " ", request.path, " a=", request.Query("a"));
  if (request.method == "POST" && request.path == "/parts") {
    const absl::Status status = peer.ReadParts(
        1000,
        [&](const HttpPart& part) {
          text += StrCat(" [", part.name, ":", part.filename, "]");
          return absl::OkStatus();
        },
        [&](std::string_view bytes) {
          text += bytes;
          return absl::OkStatus();
        });
    if (!status.ok()) return {.status = 400, .body = std::string(status.message())};
  } else if (request.method == "POST") {
    const auto body = peer.ReadBody(1000);
    if (!body.ok()) {
      return {.status = absl::IsResourceExhausted(body.status())  ? 413
                        : absl::IsDeadlineExceeded(body.status()) ? 408
                                                                  : 400,
              .body = std::string(body.status().message())};
    }
    text += StrCat(" body=", *body);
  }
  return {.body = text};
}

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    HttpServerOptions options;
    options.port = 0;
    options.read_time = read_time_;
    options.max_body_bytes = 2000;
    options.max_held_bytes = 1400;
    options.max_connections = 8;
    auto server = HttpServer::Listen(options, Echo, [](int status, const std::string& message) {
      return StrCat("error ", status, ": ", message);
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    thread_ = std::thread([this] { server_->Run(); });
  }
  void TearDown() override {
    server_->Stop();
    thread_.join();
  }

  int Connect() const {
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return client;
  }
  // What comes back until the server closes. `ends`: the client sends nothing more.
  std::string Exchange(const std::string& sent, bool ends = true) const {
    const int client = Connect();
    EXPECT_EQ(send(client, sent.data(), sent.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(sent.size()));
    if (ends) shutdown(client, SHUT_WR);
    std::string received;
    char bytes[4096];
    for (ssize_t n = 0; (n = recv(client, bytes, sizeof(bytes), 0)) > 0;) {
      received.append(bytes, static_cast<size_t>(n));
    }
    close(client);
    return received;
  }
  static std::string Post(const std::string& path, const std::string& headers,
                          const std::string& body) {
    return StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\n", headers, "\r\n", body);
  }

  std::chrono::milliseconds read_time_{60'000};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

class ImpatientServerTest : public HttpServerTest {
 protected:
  ImpatientServerTest() { read_time_ = std::chrono::milliseconds(300); }
};

TEST_F(HttpServerTest, AnswersRequestsOneAfterTheOther) {
  const std::string got =
      Exchange("GET /b%20c?a=1%2F2 HTTP/1.1\r\nHost: x\r\n\r\n" +
               Post("/x", "Content-Length: 3\r\n", "abc") +
               Post("/y", "Transfer-Encoding: chunked\r\n", "2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"));
  EXPECT_THAT(got, HasSubstr("GET /b c a=1/2"));
  EXPECT_THAT(got, HasSubstr("POST /x a= body=abc"));
  EXPECT_THAT(got, HasSubstr("POST /y a= body=def"));
}

TEST_F(HttpServerTest, StreamsInChunks) {
  EXPECT_THAT(Exchange("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"),
              HasSubstr("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"));
}

TEST_F(HttpServerTest, GivesThePartsOfAForm) {
  const std::string body =
      "--b\r\nContent-Disposition: form-data; name=\"f\"; "
      "filename=\"../x\"\r\n\r\nabc\r\n--b--\r\n";
  const std::string headers = StrCat("Content-Type: multipart/form-data; boundary=b\r\n",
                                     "Content-Length: ", body.size(), "\r\n");
  EXPECT_THAT(Exchange(Post("/parts", headers, body)), HasSubstr("[f:../x]abc"));
  EXPECT_THAT(Exchange(Post("/x", headers, body)), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Exchange(Post("/parts", "Content-Length: 3\r\n", "abc")),
              StartsWith("HTTP/1.1 400 "));
}

TEST_F(HttpServerTest, WhatIsBehindABodyThatWasNotReadIsNoRequest) {
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const std::string& headers :
       {StrCat("Content-Length: ", hidden.size(), "\r\n"), std::string("Content-Length: 5000\r\n"),
        StrCat("Content-Length: 1\r\nContent-Length: ", hidden.size(), "\r\n"),
        StrCat("Transfer-Encoding: chunked\r\nContent-Length: ", hidden.size(), "\r\n"),
        std::string("Transfer-Encoding: gzip\r\n"), std::string("Content-Length: -1\r\n"),
        std::string("Content-Length: 1x\r\n")}) {
    const std::string got = Exchange(Post("/unread", headers, hidden));
    EXPECT_THAT(got, StartsWith("HTTP/1.1 4")) << headers;
    EXPECT_EQ(got.find("/hidden"), std::string::npos) << headers << got;
  }
  const std::string with_body = "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: ";
  EXPECT_EQ(Exchange(StrCat(with_body, hidden.size(), "\r\n\r\n", hidden)).find("/hidden"),
            std::string::npos);
}

TEST_F(HttpServerTest, RefusesWhatIsTooLarge) {
  EXPECT_THAT(Exchange(Post("/x", "Content-Length: 3000\r\n", "abc")), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(Post("/x", "Content-Length: 1500\r\n", std::string(1500, 'x'))),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(Post("/x", "Transfer-Encoding: chunked\r\n",
                            StrCat("5dc\r\n", std::string(1500, 'x'), "\r\n0\r\n\r\n"))),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(StrCat("GET /", std::string(9000, 'x'), " HTTP/1.1\r\nHost: x\r\n\r\n")),
              StartsWith("HTTP/1.1 414 "));
  std::string headers;
  for (int i = 0; i < 3000; ++i) headers += StrCat("X-", i, ": ", std::string(50, 'y'), "\r\n");
  EXPECT_THAT(Exchange(StrCat("GET / HTTP/1.1\r\nHost: x\r\n", headers, "\r\n")),
              StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, HoldsNoMoreThanItMayOfAllBodiesTogether) {
  // One is being received while another one comes. Should the other one be received first, then
  // either of them may be refused: again.
  const std::string half(900, 'x');
  const std::string begin = Post("/x", "Content-Length: 901\r\n", half);
  int first = -1;
  std::string second;
  do {
    if (first >= 0) close(first);
    first = Connect();
    ASSERT_EQ(send(first, begin.data(), begin.size(), 0), static_cast<ssize_t>(begin.size()));
    second = Exchange(Post("/x", "Content-Length: 900\r\n", half));
  } while (second.starts_with("HTTP/1.1 200 "));
  EXPECT_THAT(second, StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(second, HasSubstr("receiving too much"));
  close(first);
  std::string third;
  do {
    third = Exchange(Post("/x", "Content-Length: 900\r\n", half));
  } while (!third.starts_with("HTTP/1.1 200 "));  // what it held is given back
}

TEST_F(ImpatientServerTest, DoesNotWaitForEverForARequest) {
  for (const std::string& begin :
       {std::string("GET"), std::string("GET / HTTP/1.1\r\nHost: x\r\nA"),
        Post("/x", "Content-Length: 5\r\n", "ab"),
        Post("/x", "Transfer-Encoding: chunked\r\n", "5\r\nab")}) {
    EXPECT_THAT(Exchange(begin, /*ends=*/false), StartsWith("HTTP/1.1 408 ")) << begin;
  }
}

TEST_F(HttpServerTest, NonsenseAndFailuresHaveAStatus) {
  for (const std::string& sent :
       {std::string("nonsense\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET /%zz%00 HTTP/1.1\r\nRange: bytes=9-1,x\r\n\r\n"),
        std::string("\0\1\2\r\n\r\n", 7), Post("/x", "Content-Length: 9\r\n", "ab")}) {
    EXPECT_THAT(Exchange(sent), StartsWith("HTTP/1.1 ")) << sent;
  }
  EXPECT_THAT(Exchange("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 500 "));
  // Ranges mean nothing here.
  EXPECT_THAT(Exchange("GET /x HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n"),
              HasSubstr("GET /x a="));
}

TEST_F(HttpServerTest, MoreConnectionsThanItServesWait) {
  std::vector<std::thread> clients;
  std::atomic<int> n_answered{0};
  for (int i = 0; i < 40; ++i) {
    clients.emplace_back([&] {
      const std::string answer = Exchange("GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
      EXPECT_THAT(answer, HasSubstr("GET /x"));
      if (!answer.empty()) ++n_answered;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(n_answered, 40);
}

TEST(HttpServerListenTest, SaysWhatIsWrongWithAnAddress) {
  const auto body = [](int, const std::string&) { return std::string(); };
  HttpServerOptions options;
  options.host = "no.such.host.invalid";
  EXPECT_EQ(HttpServer::Listen(options, Echo, body).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.host = "127.0.0.1";
  options.port = 0;
  const auto first = HttpServer::Listen(options, Echo, body);
  ASSERT_TRUE(first.ok());
  options.port = (*first)->port();
  EXPECT_EQ(HttpServer::Listen(options, Echo, body).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(ServerTest, KnowsWhichAddressesAreOfThisMachineAlone) {
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "::1"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const char* host : {"", "0.0.0.0", "::", "127.evil.example", "192.168.1.2", "10.127.0.1"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(ServerTest, NamesAModelWithoutItsPlace) {
  EXPECT_EQ(ServedName("smollm2"), "smollm2");
  EXPECT_EQ(ServedName("qwen2.5-0.5b"), "qwen2.5-0.5b");
  EXPECT_EQ(ServedName("/models/Qwen2.5-0.5B.Q4_1.gguf"), "Qwen2.5-0.5B.Q4_1");
  EXPECT_EQ(ServedName("/models/longllama_3b_v1.1"), "longllama_3b_v1.1");
}

}  // namespace
}  // namespace fovea::serve
