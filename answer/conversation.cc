#include "answer/conversation.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace fovea::answer {
namespace {

using model::ChatMessage;

constexpr size_t kMessagesPerTurn = 2;
// Tokens of earlier turns that a window sees beside its own, as between windows of a document.
constexpr size_t kOverlapTokens = 128;

// The ids of a turn as they stand in a prompt: without the opening of an answer that RenderChat
// ends with. That is what it has in common with the same turn followed by another question.
absl::StatusOr<std::vector<int32_t>> RenderTurn(const model::Tokenizer& tokenizer,
                                                const PromptStyle& style,
                                                std::span<const ChatMessage> turn) {
  std::vector<ChatMessage> messages(turn.begin(), turn.end());
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, model::RenderChat(tokenizer, style.format, messages));
  messages.push_back({ChatMessage::Role::kUser, "-"});
  ASSIGN_OR_RETURN(const std::vector<int32_t> longer,
                   model::RenderChat(tokenizer, style.format, messages));
  const auto [end, unused] = std::mismatch(ids.begin(), ids.end(), longer.begin(), longer.end());
  ids.erase(end, ids.end());
  return ids;
}

}  // namespace

void Conversation::AddTurn(std::string question, std::string answer) {
  messages_.push_back({ChatMessage::Role::kUser, std::move(question)});
  messages_.push_back({ChatMessage::Role::kAssistant, std::move(answer)});
}

absl::Status Conversation::RetireOldestTurn(const PromptStyle& style, model::Transformer* model) {
  FOVEA_CHECK(messages_.size() >= kMessagesPerTurn);
  const std::span<const ChatMessage> turn = messages();
  if (!model->memory_config().mem_layers.empty()) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                     RenderTurn(model->tokenizer(), style, turn.first(kMessagesPerTurn)));
    const size_t window_tokens = static_cast<size_t>(std::max(1, model->memory_config().window));
    std::vector<model::EncodedWindow> encoded;
    std::vector<int32_t> context = last_ids_;
    for (size_t begin = 0; begin < ids.size(); begin += window_tokens) {
      const std::span<const int32_t> tokens =
          std::span(ids).subspan(begin, std::min(window_tokens, ids.size() - begin));
      const model::WindowTokens window{.context = context, .tokens = tokens};
      ASSIGN_OR_RETURN(std::vector<model::EncodedWindow> windows, model->Encode({&window, 1}));
      std::move(windows.begin(), windows.end(), std::back_inserter(encoded));
      context.insert(context.end(), tokens.begin(), tokens.end());
      if (context.size() > kOverlapTokens) {
        context.erase(context.begin(), context.end() - kOverlapTokens);
      }
    }
    last_ids_ = std::move(context);
    std::move(encoded.begin(), encoded.end(), std::back_inserter(session_windows_));
  }
  messages_.erase(messages_.begin(), messages_.begin() + kMessagesPerTurn);
  return absl::OkStatus();
}

void Conversation::UseView(MemoryView view) {
  if (view == view_) return;
  context_.Clear();
  view_ = std::move(view);
}

void Conversation::Clear() {
  context_.Clear();
  messages_.clear();
  session_windows_.clear();
  last_ids_.clear();
}

}  // namespace fovea::answer
