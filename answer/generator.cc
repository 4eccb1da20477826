#include "answer/generator.h"

#include <algorithm>
#include <utility>

#include "answer/answer_text.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::answer {
namespace {

using Clock = std::chrono::steady_clock;

// Whether the ids end in a loop: the same few again and again, which a model at its wit's end goes
// on with for ever. Lists and tables repeat themselves less exactly, or less often.
bool EndsInLoop(const std::vector<int32_t>& ids) {
  constexpr size_t kLongestPeriod = 32;
  constexpr size_t kLeastRepetitions = 4;
  constexpr size_t kLeastTokens = 48;  // of all repetitions
  for (size_t period = 1; period <= kLongestPeriod; ++period) {
    const size_t n = std::max(kLeastTokens, period * kLeastRepetitions);
    if (ids.size() < n) continue;
    if (std::equal(ids.end() - static_cast<ptrdiff_t>(n - period), ids.end(),
                   ids.end() - static_cast<ptrdiff_t>(n))) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<Generated> Generate(GenerateArgs args, const Progress& progress) {
  const model::Tokenizer& tokenizer = args.model->tokenizer();
  model::Sampler sampler(args.sampling);
  model::StreamDecoder decoder(tokenizer);
  AnswerText text(args.skip_leading_space, args.stop, args.stream);
  std::vector<int32_t> generated;
  Generated result;
  result.finish_reason = "length";
  bool has_end_token = false;
  result.first_token_at = Clock::now();

  // Of greedy decoding the model gives the next id, not the logits.
  const bool is_greedy = args.sampling.temperature <= 0.0f;
  int32_t id = sampler.Sample(args.logits);
  for (bool is_first = true; result.n_tokens < args.max_tokens; is_first = false) {
    if (!progress.CheckCancelled().ok()) {
      result.finish_reason = "cancelled";
      break;
    }
    if (!is_first && !is_greedy) id = sampler.Sample(args.logits);
    if (result.n_tokens == 0) result.first_token_at = Clock::now();
    if (tokenizer.IsEnd(id) ||
        std::find(args.end_ids.begin(), args.end_ids.end(), id) != args.end_ids.end()) {
      has_end_token = true;
      result.finish_reason = "stop";
      break;
    }
    ++result.n_tokens;
    text.Push(decoder.Push(id));
    if (text.at_stop()) break;
    if (text.is_refused()) {
      result.finish_reason = "cancelled";
      break;
    }
    if (result.n_tokens == args.max_tokens) break;
    generated.push_back(id);
    if (EndsInLoop(generated)) {
      result.finish_reason = "repetition";
      break;
    }
    const absl::Status appended =
        args.context->Append(id, *args.model, args.memory, is_greedy ? nullptr : &args.logits,
                             is_greedy ? &id : nullptr);
    // A search was stopped: the answer so far is none the worse for it.
    if (absl::IsCancelled(appended)) {
      result.finish_reason = "cancelled";
      break;
    }
    RETURN_IF_ERROR(appended);
  }
  text.Push(decoder.Finish());
  text.Finish();
  if (text.at_stop()) result.finish_reason = "stop";
  result.text = text.Take();
  const int64_t n_decoded = result.n_tokens - (has_end_token ? 0 : 1);
  if (n_decoded > 0) {
    const std::chrono::duration<double, std::milli> elapsed = Clock::now() - result.first_token_at;
    result.ms_per_token = elapsed.count() / static_cast<double>(n_decoded);
  }
  return result;
}

}  // namespace fovea::answer
