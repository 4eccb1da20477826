#include "model/reference_session.h"

#include <algorithm>
#include <utility>

namespace fovea::model {

ReferenceSession::ReferenceSession(Transformer* model, GrowingMemory* memory)
    : model_(model), memory_(memory) {}

absl::Status ReferenceSession::Run(const Call& call, std::vector<float>* logits, bool all_logits,
                                   std::vector<Segment>* segments) {
  const auto n = static_cast<int64_t>(call.ids.size());
  const bool has_context = local_length() > 0;
  if (n == 0) return absl::InvalidArgumentError("no tokens to run the model on");
  if (!call.use_cache && has_context) {
    return absl::FailedPreconditionError(
        StrCat("a call without cache after ", local_length(),
               " tokens in the local context: only an empty one can be ingested into"));
  }
  if (call.n_padding > 0 && context_.n_tokens() > 0) {
    return absl::FailedPreconditionError("padding after tokens: fovea takes left padding only");
  }
  int64_t last_context_length = call.last_context_length;
  if (last_context_length <= 0) last_context_length = model_->memory_config().last_context_length;
  if (last_context_length <= 0) last_context_length = model_->config().max_position_embeddings;

  if (logits != nullptr) logits->clear();
  const int64_t n_head = std::max<int64_t>(n - last_context_length, 0);
  const int64_t window = model_->config().max_position_embeddings;
  for (int64_t begin = 0; begin < n;) {
    const int64_t end = begin < n_head ? std::min(begin + window, n_head) : n;
    const bool is_tail = end == n;
    const bool to_memory = !has_context && !(is_tail && call.use_cache);
    std::vector<float> rows;
    RETURN_IF_ERROR(RunSegment(
        call.ids.subspan(begin, end - begin),
        std::clamp<int64_t>(call.n_padding - begin, 0, end - begin), to_memory,
        logits != nullptr && (all_logits || is_tail) ? &rows : nullptr, all_logits, segments));
    if (logits != nullptr) logits->insert(logits->end(), rows.begin(), rows.end());
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status ReferenceSession::RunSegment(std::span<const int32_t> ids, int64_t n_padding,
                                          bool to_memory, std::vector<float>* logits,
                                          bool all_logits, std::vector<Segment>* segments) {
  const auto n = static_cast<int64_t>(ids.size());
  if (segments != nullptr) segments->push_back({n, local_length(), memory_length()});
  if (local_length() > 0 && local_length() + n > model_->config().max_position_embeddings) {
    RETURN_IF_ERROR(MoveToMemory(&context_));
  }
  LocalContext window = LocalContext::ForWindow({});
  LocalContext* const context = to_memory ? &window : &context_;
  if (n_padding > 0) context->AddPadding(n_padding);
  if (n_padding < n) {
    RETURN_IF_ERROR(model_->Forward(ids.subspan(n_padding), context, memory_, logits, all_logits));
  }
  if (logits != nullptr) {
    const auto n_values = static_cast<size_t>((all_logits ? n : 1) * model_->config().vocab_size);
    logits->insert(logits->begin(), n_values - logits->size(), 0.0f);
  }
  return to_memory ? MoveToMemory(&window) : absl::OkStatus();
}

absl::Status ReferenceSession::MoveToMemory(LocalContext* context) {
  ASSIGN_OR_RETURN(MemoryEntries entries, model_->Entries(*model_->device(), *context));
  RETURN_IF_ERROR(memory_->Append(std::move(entries)));
  memory_padding_ += context->n_padding();
  context->Clear();
  return absl::OkStatus();
}

}  // namespace fovea::model
