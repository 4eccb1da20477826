// What Prometheus asks for: counts of requests and tokens, how long they took, and what is under
// way.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace fovea::serve {

// What is so at the moment of asking.
struct Gauges {
  size_t questions_running = 0;
  size_t questions_waiting = 0;
  size_t jobs_waiting = 0;
  size_t jobs_running = 0;
  size_t jobs_failed = 0;
  uint64_t memory_documents = 0;
  uint64_t memory_tokens = 0;
  uint64_t decode_batches = 0;  // so far, and the steps in them
  uint64_t decode_steps = 0;
};

// Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `route`: one of the few that there are, never what a client sent.
  void CountRequest(std::string_view route, int status, double seconds);
  // `first_token_seconds`: from the question's arrival, waiting included.
  void CountAnswer(int64_t prompt_tokens, int64_t completion_tokens, double first_token_seconds,
                   double seconds_per_token);

  // In Prometheus' text format.
  std::string Text(const Gauges& gauges) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fovea::serve
