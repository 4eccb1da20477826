#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>

namespace fovea::serve {

namespace {

prometheus::Family<prometheus::Gauge>& GaugeFamily(prometheus::Registry& registry,
                                                   const std::string& name,
                                                   const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

prometheus::Counter& LoneCounter(prometheus::Registry& registry, const std::string& name,
                                 const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

// Each bucket holds what took up to twice as long as the one before.
prometheus::Histogram::BucketBoundaries Buckets(double first, int n) {
  prometheus::Histogram::BucketBoundaries buckets;
  for (int i = 0; i < n; ++i, first *= 2.0) buckets.push_back(first);
  return buckets;
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests =
      prometheus::BuildCounter()
          .Name("fovea_http_requests_total")
          .Help("Requests that were answered, by route and status")
          .Register(registry);
  prometheus::Family<prometheus::Histogram>& request_seconds =
      prometheus::BuildHistogram()
          .Name("fovea_http_request_seconds")
          .Help("From the head of a request to the last byte of its response")
          .Register(registry);
  prometheus::Counter& prompt_tokens =
      LoneCounter(registry, "fovea_prompt_tokens_total", "Tokens of prompts, passages included");
  prometheus::Counter& completion_tokens =
      LoneCounter(registry, "fovea_completion_tokens_total", "Tokens of answers");
  prometheus::Histogram& first_token = prometheus::BuildHistogram()
                                           .Name("fovea_first_token_seconds")
                                           .Help("From a question to the first token of its answer")
                                           .Register(registry)
                                           .Add({}, Buckets(0.01, 14));
  prometheus::Histogram& token = prometheus::BuildHistogram()
                                     .Name("fovea_token_seconds")
                                     .Help("Mean time of a token of an answer, after the first")
                                     .Register(registry)
                                     .Add({}, Buckets(0.0005, 14));
  prometheus::Family<prometheus::Gauge>& questions =
      GaugeFamily(registry, "fovea_questions", "Questions and searches, by state");
  prometheus::Gauge& questions_running = questions.Add({{"state", "running"}});
  prometheus::Gauge& questions_waiting = questions.Add({{"state", "waiting"}});
  prometheus::Family<prometheus::Gauge>& jobs = GaugeFamily(registry, "fovea_jobs", "By state");
  prometheus::Gauge& jobs_running = jobs.Add({{"state", "running"}});
  prometheus::Gauge& jobs_waiting = jobs.Add({{"state", "waiting"}});
  prometheus::Gauge& jobs_failed = jobs.Add({{"state", "failed"}});
  prometheus::Gauge& documents =
      GaugeFamily(registry, "fovea_memory_documents", "Documents in the memory").Add({});
  prometheus::Gauge& tokens =
      GaugeFamily(registry, "fovea_memory_tokens", "Tokens in the memory").Add({});
  prometheus::Gauge& batches = GaugeFamily(registry, "fovea_decode_batches",
                                           "Runs of the model for steps of answers, so far")
                                   .Add({});
  prometheus::Gauge& steps =
      GaugeFamily(registry, "fovea_decode_steps", "Steps of one token in these runs, so far")
          .Add({});
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::CountRequest(std::string_view route, int status, double seconds) {
  const std::string name(route);
  impl_->requests.Add({{"route", name}, {"status", std::to_string(status)}}).Increment();
  impl_->request_seconds.Add({{"route", name}}, Buckets(0.001, 18)).Observe(seconds);
}

void Metrics::CountAnswer(int64_t prompt_tokens, int64_t completion_tokens,
                          double first_token_seconds, double seconds_per_token) {
  impl_->prompt_tokens.Increment(static_cast<double>(prompt_tokens));
  impl_->completion_tokens.Increment(static_cast<double>(completion_tokens));
  if (completion_tokens > 0) impl_->first_token.Observe(first_token_seconds);
  if (completion_tokens > 1) impl_->token.Observe(seconds_per_token);
}

std::string Metrics::Text(const Gauges& gauges) const {
  const auto set = [](prometheus::Gauge& gauge, uint64_t value) {
    gauge.Set(static_cast<double>(value));
  };
  set(impl_->questions_running, gauges.questions_running);
  set(impl_->questions_waiting, gauges.questions_waiting);
  set(impl_->jobs_running, gauges.jobs_running);
  set(impl_->jobs_waiting, gauges.jobs_waiting);
  set(impl_->jobs_failed, gauges.jobs_failed);
  set(impl_->documents, gauges.memory_documents);
  set(impl_->tokens, gauges.memory_tokens);
  set(impl_->batches, gauges.decode_batches);
  set(impl_->steps, gauges.decode_steps);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace fovea::serve
