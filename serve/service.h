// What the server offers: routes, who may use them, and what they do with a memory.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "answer/fovea.h"
#include "serve/api_keys.h"
#include "serve/completion.h"
#include "serve/http.h"
#include "serve/job_store.h"
#include "serve/metrics.h"
#include "serve/question_queue.h"
#include "serve/writer.h"

namespace fovea::serve {

struct ServiceParts {
  answer::Fovea* fovea = nullptr;
  QuestionQueue* questions = nullptr;
  JobStore* jobs = nullptr;
  Writer* writer = nullptr;
  Metrics* metrics = nullptr;
  const ApiKeys* keys = nullptr;
  std::string host;  // that it listens on: a name for it that needs no key
};

// What clients call the model that a memory remembers as `model_name`.
std::string ServedName(const std::string& model_name);

// Thread-safe. Borrows its parts.
class Service {
 public:
  explicit Service(const ServiceParts& parts);

  // An HttpHandler.
  HttpResponse Handle(const HttpRequest& request, HttpPeer& peer) const;

  // What /v1/models names.
  const std::string& model() const { return model_; }

 private:
  // A request with what its key allows, and what stands in its path behind the route's.
  struct Call {
    const HttpRequest& request;
    HttpPeer& peer;
    const Access& access;
    std::string rest;
  };
  using Method = HttpResponse (Service::*)(const Call&) const;
  struct Route {
    std::string_view method;
    std::string_view path;  // one that ends with "/" has something behind it: an id
    Method handle;
    enum class Who { kAll, kKeys, kUnlimitedKeys } who = Who::kKeys;
  };
  static const std::vector<Route>& Routes();

  // Where no key is asked for, a page of another site must not use the server through a browser.
  absl::Status CheckOrigin(const HttpRequest& request) const;
  HttpResponse Dispatch(const HttpRequest& request, HttpPeer& peer, std::string_view* route) const;

  // service.cc
  HttpResponse Page(const Call& call) const;
  HttpResponse Health(const Call& call) const;
  HttpResponse MetricsText(const Call& call) const;
  HttpResponse Models(const Call& call) const;
  HttpResponse OneModel(const Call& call) const;
  HttpResponse Embeddings(const Call& call) const;
  // question_routes.cc
  HttpResponse ChatCompletion(const Call& call) const;
  HttpResponse TextCompletion(const Call& call) const;
  HttpResponse Complete(const Call& call, CompletionKind kind) const;
  HttpResponse Search(const Call& call) const;
  // document_routes.cc
  HttpResponse ListCollections(const Call& call) const;
  HttpResponse ListDocuments(const Call& call) const;
  HttpResponse AddDocuments(const Call& call) const;
  HttpResponse ShowDocument(const Call& call) const;
  HttpResponse DeleteDocument(const Call& call) const;
  // job_routes.cc
  HttpResponse ListJobs(const Call& call) const;
  HttpResponse AddJob(const Call& call) const;
  HttpResponse ShowJob(const Call& call) const;
  HttpResponse CancelJob(const Call& call) const;

  const ServiceParts parts_;
  const std::string model_;
};

}  // namespace fovea::serve
