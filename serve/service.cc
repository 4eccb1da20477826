#include "serve/service.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <map>
#include <utility>

#include "documents/utf8.h"
#include "serve/errors.h"
#include "serve/page/page.h"

namespace fovea::serve {
namespace {

using answer::Json;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// "127.0.0.1" of "127.0.0.1:8080", "[::1]" of "[::1]:8080".
std::string_view WithoutPort(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  const bool is_port =
      colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos;
  return authority.substr(0, is_port ? colon : authority.size());
}

}  // namespace

// A model is remembered by a name, or by a path, which says more of this machine than a client
// needs.
std::string ServedName(const std::string& model_name) {
  const std::filesystem::path path = model_name;
  if (!path.is_absolute()) return model_name;
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

Service::Service(const ServiceParts& parts)
    : parts_(parts), model_(ServedName(parts.fovea->ingest_options().model_name)) {}

const std::vector<Service::Route>& Service::Routes() {
  using Who = Route::Who;
  static const std::vector<Route> routes = {
      {"GET", "/", &Service::Page, Who::kAll},
      {"GET", "/page/", &Service::Page, Who::kAll},
      {"GET", "/health", &Service::Health, Who::kAll},
      {"GET", "/metrics", &Service::MetricsText, Who::kUnlimitedKeys},
      {"GET", "/v1/models", &Service::Models},
      {"GET", "/v1/models/", &Service::OneModel},
      {"POST", "/v1/embeddings", &Service::Embeddings},
      {"POST", "/v1/chat/completions", &Service::ChatCompletion},
      {"POST", "/v1/completions", &Service::TextCompletion},
      {"POST", "/v1/search", &Service::Search},
      {"GET", "/v1/collections", &Service::ListCollections},
      {"GET", "/v1/documents", &Service::ListDocuments},
      {"POST", "/v1/documents", &Service::AddDocuments},
      {"GET", "/v1/documents/", &Service::ShowDocument},
      {"DELETE", "/v1/documents/", &Service::DeleteDocument},
      {"GET", "/v1/jobs", &Service::ListJobs},
      {"POST", "/v1/jobs", &Service::AddJob, Who::kUnlimitedKeys},
      {"GET", "/v1/jobs/", &Service::ShowJob},
      {"DELETE", "/v1/jobs/", &Service::CancelJob},
  };
  return routes;
}

HttpResponse Service::Handle(const HttpRequest& request, HttpPeer& peer) const {
  const Clock::time_point begin = Clock::now();
  std::string_view route = "none";
  HttpResponse response = Dispatch(request, peer, &route);
  if (!response.stream) {
    parts_.metrics->CountRequest(route, response.status, SecondsSince(begin));
    return response;
  }
  response.stream = [this, begin, route, status = response.status,
                     stream = std::move(response.stream)](const HttpWrite& write) {
    stream(write);
    parts_.metrics->CountRequest(route, status, SecondsSince(begin));
  };
  return response;
}

HttpResponse Service::Dispatch(const HttpRequest& request, HttpPeer& peer,
                               std::string_view* route_path) const {
  if (const absl::Status origin = CheckOrigin(request); !origin.ok()) return ErrorResponse(origin);
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : Routes()) {
    const bool has_rest = route.path.size() > 1 && route.path.ends_with('/');
    const bool matches = has_rest
                             ? request.path.size() > route.path.size() &&
                                   request.path.starts_with(route.path) &&
                                   request.path.find('/', route.path.size()) == std::string::npos
                             : request.path == route.path;
    if (!matches) continue;
    *route_path = route.path;
    allowed += StrCat(allowed.empty() ? "" : ", ", route.method);
    if (route.method == method) found = &route;
  }
  const std::optional<Access> access = parts_.keys->Find(request.Header("authorization"));
  const bool is_open = found != nullptr && found->who == Route::Who::kAll;
  if (!access.has_value() && !is_open) {
    return ErrorResponse(401, "this server wants a key that it knows: Authorization: Bearer KEY",
                         "invalid_api_key");
  }
  if (allowed.empty()) {
    return ErrorResponse(404,
                         StrCat("there is nothing at ", documents::OneLine(request.path, 200)));
  }
  if (found == nullptr) {
    HttpResponse response = ErrorResponse(405, StrCat("want ", allowed));
    response.headers.emplace_back("Allow", allowed);
    return response;
  }
  if (found->who == Route::Who::kUnlimitedKeys && access->is_limited()) {
    return ErrorResponse(403, "this key is limited to collections, and this concerns all of them");
  }
  const Access all;
  const Call call{.request = request,
                  .peer = peer,
                  .access = access.has_value() ? *access : all,
                  .rest = request.path.substr(std::min(found->path.size(), request.path.size()))};
  return (this->*found->handle)(call);
}

absl::Status Service::CheckOrigin(const HttpRequest& request) const {
  if (!parts_.keys->empty()) return absl::OkStatus();
  std::string host = request.Header("host");
  for (char& c : host) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const std::string_view name = WithoutPort(host);
  if (name != "localhost" && name != "127.0.0.1" && name != "[::1]" && name != parts_.host &&
      name != StrCat("[", parts_.host, "]")) {
    return absl::PermissionDeniedError(
        "a server without keys answers to localhost, 127.0.0.1 and [::1] alone (Host)");
  }
  const std::string origin = request.Header("origin");
  if (!origin.empty() && origin != StrCat("http://", host)) {
    return absl::PermissionDeniedError(
        "a server without keys answers no page of another site (Origin)");
  }
  return absl::OkStatus();
}

HttpResponse Service::Page(const Call& call) const {
  return PageResponse(call.rest.empty() ? "index.html" : call.rest,
                      call.request.Header("if-none-match"));
}

HttpResponse Service::Health(const Call&) const {
  return {.body = answer::JsonText({{"status", "ok"}})};
}

HttpResponse Service::MetricsText(const Call&) const {
  const QuestionQueue::Counts counts = parts_.questions->counts();
  const auto generation = parts_.fovea->memory().Current();
  const answer::SharedModel::Statistics steps = parts_.fovea->answerer().statistics();
  Gauges gauges{.questions_running = counts.n_running,
                .questions_waiting = counts.n_waiting,
                .memory_documents = generation->documents.size(),
                .memory_tokens = generation->n_tokens,
                .decode_batches = static_cast<uint64_t>(steps.n_batches),
                .decode_steps = static_cast<uint64_t>(steps.n_steps)};
  std::map<JobState, size_t> jobs = parts_.jobs->CountByState();
  gauges.jobs_waiting = jobs[JobState::kWaiting];
  gauges.jobs_running = jobs[JobState::kRunning];
  gauges.jobs_failed = jobs[JobState::kFailed];
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = parts_.metrics->Text(gauges)};
}

namespace {

Json ModelJson(const std::string& id) {
  return {{"id", id}, {"object", "model"}, {"created", 0}, {"owned_by", "fovea"}};
}

}  // namespace

HttpResponse Service::Models(const Call&) const {
  return {.body =
              answer::JsonText({{"object", "list"}, {"data", Json::array({ModelJson(model_)})}})};
}

HttpResponse Service::OneModel(const Call& call) const {
  if (call.rest != model_) {
    return ErrorResponse(404, StrCat("the model that is served here is \"", model_, "\""),
                         "model_not_found");
  }
  return {.body = answer::JsonText(ModelJson(model_))};
}

HttpResponse Service::Embeddings(const Call&) const {
  return ErrorResponse(501,
                       "embeddings are not offered: POST /v1/search finds passages for a text");
}

}  // namespace fovea::serve
