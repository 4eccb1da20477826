#include "answer/generator.h"

#include <algorithm>
#include <string_view>

#include "model/sampler.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::answer {
namespace {

using Clock = std::chrono::steady_clock;

// Collects the text of an answer and passes it on.
class AnswerText {
 public:
  AnswerText(bool skip_leading_space, const StreamCallback& stream)
      : skipping_(skip_leading_space), stream_(stream) {}

  // False when the receiver wants no more.
  bool Push(std::string_view piece) {
    if (skipping_) {
      const size_t begin = piece.find_first_not_of(" \t\r\n");
      if (begin == std::string_view::npos) return true;
      piece.remove_prefix(begin);
      skipping_ = false;
    }
    if (piece.empty()) return true;
    text_ += piece;
    return stream_ == nullptr || stream_(piece);
  }
  std::string Take() { return std::move(text_); }

 private:
  bool skipping_;
  const StreamCallback& stream_;
  std::string text_;
};

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
  model::Sampler sampler(args.temperature, args.seed);
  model::StreamDecoder decoder(tokenizer);
  AnswerText text(args.skip_leading_space, args.stream);
  std::vector<int32_t> generated;
  Generated result;
  result.finish_reason = "length";
  result.first_token_at = Clock::now();

  while (result.n_tokens < args.max_tokens) {
    if (!progress.CheckCancelled().ok()) {
      result.finish_reason = "cancelled";
      break;
    }
    const int32_t id = sampler.Sample(args.logits);
    if (result.n_tokens == 0) result.first_token_at = Clock::now();
    if (tokenizer.IsEnd(id) ||
        std::find(args.end_ids.begin(), args.end_ids.end(), id) != args.end_ids.end()) {
      result.finish_reason = "stop";
      break;
    }
    ++result.n_tokens;
    if (!text.Push(decoder.Push(id))) {
      result.finish_reason = "cancelled";
      break;
    }
    if (result.n_tokens == args.max_tokens) break;
    generated.push_back(id);
    if (EndsInLoop(generated)) {
      result.finish_reason = "repetition";
      break;
    }
    RETURN_IF_ERROR(args.context->Append(id, args.model, args.memory, &args.logits));
  }
  text.Push(decoder.Finish());
  result.text = text.Take();
  const int64_t n_decoded = result.n_tokens - (result.finish_reason == "stop" ? 0 : 1);
  if (n_decoded > 0) {
    const std::chrono::duration<double, std::milli> elapsed = Clock::now() - result.first_token_at;
    result.ms_per_token = elapsed.count() / static_cast<double>(n_decoded);
  }
  return result;
}

}  // namespace fovea::answer
