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

}  // namespace

absl::StatusOr<Generated> Generate(GenerateArgs args, const Progress& progress) {
  const model::Tokenizer& tokenizer = args.model->tokenizer();
  model::Sampler sampler(args.temperature, args.seed);
  model::StreamDecoder decoder(tokenizer);
  AnswerText text(args.skip_leading_space, args.stream);
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
