// A memory as a service: opens it for writing, and answers requests until it is told to stop.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "answer/fovea.h"
#include "base/status.h"
#include "serve/http_server.h"
#include "serve/question_queue.h"

namespace fovea::serve {

struct ServerOptions {
  answer::FoveaOptions fovea;
  HttpServerOptions http;
  QuestionQueueOptions questions;
  std::optional<std::filesystem::path> api_key_file;
};

// Whether an address is of this machine alone: localhost, 127.0.0.0/8 or ::1.
bool IsLoopback(const std::string& host);

// Makes the memory where there is none. Calls `on_ready` with the port once it takes requests, and
// `say` with what people should know. Returns when *stop (which is looked at every few
// milliseconds) is true: answers end at their next token, a job goes on at the next start.
// InvalidArgument for an address that others reach without a file of keys, and for a bad file of
// them; FailedPrecondition for keys that are limited to collections where encoded windows attend to
// other documents (encoding "reference").
absl::Status RunServer(const ServerOptions& options, const std::atomic<bool>* stop,
                       const std::function<void(int port)>& on_ready,
                       const std::function<void(const std::string&)>& say);

}  // namespace fovea::serve
