// From the logits of a prompt to an answer: samples, streams whole characters, and stops at an end
// token, at the limit, or when asked to.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "answer/prompt_context.h"
#include "answer/request.h"
#include "answer/shared_model.h"
#include "base/progress.h"
#include "base/status.h"
#include "model/memory_source.h"
#include "model/sampler.h"

namespace fovea::answer {

struct GenerateArgs {
  const SharedModel* model = nullptr;
  model::MemorySource* memory = nullptr;  // may be null
  PromptContext* context = nullptr;       // holds the prompt
  std::vector<float> logits;              // [vocab_size] of the prompt's last token
  int64_t max_tokens = 0;
  model::SamplingOptions sampling;
  std::span<const std::string> stop;  // texts that end the answer and are no part of it
  std::vector<int32_t> end_ids;       // over and above the tokenizer's
  bool skip_leading_space = false;    // white space before the answer is not part of it
  StreamCallback stream;              // may be null
};

struct Generated {
  std::string text;           // exactly what was streamed
  std::string finish_reason;  // "stop", "length", "repetition", "cancelled"
  int64_t n_tokens = 0;       // without the end token
  std::chrono::steady_clock::time_point first_token_at;
  double ms_per_token = 0.0;  // of the tokens after the first
};

absl::StatusOr<Generated> Generate(GenerateArgs args, const Progress& progress);

}  // namespace fovea::answer
