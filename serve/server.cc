#include "serve/server.h"

#include <chrono>
#include <memory>
#include <thread>

#include "serve/api_keys.h"
#include "serve/errors.h"
#include "serve/job_store.h"
#include "serve/metrics.h"
#include "serve/service.h"
#include "serve/writer.h"

namespace fovea::serve {
namespace {

absl::StatusOr<ApiKeys> ReadKeys(const ServerOptions& options) {
  if (options.api_key_file.has_value()) return ApiKeys::Read(*options.api_key_file);
  if (IsLoopback(options.http.host)) return ApiKeys();
  return absl::InvalidArgumentError(
      StrCat("--host ", options.http.host,
             " can be reached from other machines: give --api-key-file "
             "FILE (one key a line; `openssl rand -hex 24 > FILE` makes one), or listen on "
             "127.0.0.1"));
}

// What the windows of a collection hold must not have seen another's.
absl::Status CheckLimits(const ApiKeys& keys, const memory::Memory* memory,
                         const model::Transformer& model) {
  const std::string& encoding = memory != nullptr && memory->settings().has_value()
                                    ? memory->settings()->encoding
                                    : model.memory_config().encoding;
  if (!keys.has_limited_keys() || encoding != "reference") return absl::OkStatus();
  return absl::FailedPreconditionError(
      "keys that are limited to collections need documents that were encoded by themselves: this "
      "memory's attend to those before them (encoding \"reference\"); ingest into a new one with "
      "--encoding window-local");
}

}  // namespace

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

absl::Status RunServer(const ServerOptions& options, const std::atomic<bool>* stop,
                       const std::function<void(int port)>& on_ready,
                       const std::function<void(const std::string&)>& say) {
  ASSIGN_OR_RETURN(const ApiKeys keys, ReadKeys(options));
  // The port comes first, since a memory is made where there is none: a server that cannot be one
  // leaves nothing behind. Who connects meanwhile waits until it runs.
  const Service* service = nullptr;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<HttpServer> http,
      HttpServer::Listen(
          options.http,
          [&service](const HttpRequest& request, HttpPeer& peer) {
            return service->Handle(request, peer);
          },
          [](int status, const std::string& message) { return ErrorBody(status, message); }));
  answer::FoveaOptions open = options.fovea;
  open.check = [&keys](const memory::Memory* memory, const model::Transformer& model) {
    return CheckLimits(keys, memory, model);
  };
  ASSIGN_OR_RETURN(const std::unique_ptr<answer::Fovea> fovea, answer::Fovea::Open(open));
  for (const std::string& warning : fovea->warnings()) say(warning);
  ASSIGN_OR_RETURN(const std::unique_ptr<JobStore> jobs, JobStore::Open(options.fovea.memory));
  for (const std::string& damage : jobs->damages()) say(damage);
  Metrics metrics;
  QuestionQueue questions(options.questions);
  ASSIGN_OR_RETURN(const std::unique_ptr<Writer> writer, Writer::Start(fovea.get(), jobs.get()));
  const Service running({.fovea = fovea.get(),
                         .questions = &questions,
                         .jobs = jobs.get(),
                         .writer = writer.get(),
                         .metrics = &metrics,
                         .keys = &keys,
                         .host = options.http.host});
  service = &running;
  std::thread listener([&http] { http->Run(); });
  on_ready(http->port());
  while (!stop->load()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  http->Stop();
  questions.Stop();  // what is being answered ends, so that its connections do
  writer->Stop();
  listener.join();
  return absl::OkStatus();
}

}  // namespace fovea::serve
