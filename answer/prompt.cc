#include "answer/prompt.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

namespace fovea::answer {
namespace {

using model::ChatMessage;

// The first `n_tokens` tokens of `text` as text, not ending within a UTF-8 character.
std::string_view FirstTokens(std::string_view text, const model::Encoding& encoding,
                             size_t n_tokens) {
  if (n_tokens == 0) return {};
  if (n_tokens >= encoding.ends.size()) return text;
  size_t end = std::min<size_t>(encoding.ends[n_tokens - 1], text.size());
  while (end > 0 && end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

absl::StatusOr<Prompt> Render(const model::Tokenizer& tokenizer, const PromptStyle& style,
                              PromptRequest request, std::span<const std::string> passages) {
  request.passages = passages;
  Prompt prompt;
  ASSIGN_OR_RETURN(prompt.ids, RenderPrompt(tokenizer, style, request));
  prompt.n_passages = static_cast<int>(passages.size());
  return prompt;
}

}  // namespace

absl::StatusOr<PromptStyle> ChoosePromptStyle(const model::MemoryConfig& memory_config,
                                              const model::TokenizerSpec& tokenizer_spec) {
  PromptStyle style;
  if (memory_config.chat_template.empty()) {
    style.format = model::RecognizeChatFormat(tokenizer_spec.chat_template);
  } else {
    absl::StatusOr<model::ChatFormat> format = model::ParseChatFormat(memory_config.chat_template);
    if (!format.ok()) return Annotate(format.status(), "chat_template of fot_config.json");
    style.format = *format;
  }
  if (memory_config.has_system_prompt) style.system_prompt = memory_config.system_prompt;
  return style;
}

std::string UserMessage(std::span<const std::string> passages, const std::string& question) {
  std::string message;
  for (const std::string& passage : passages) {
    // Passages are cut from their document with the empty lines between them.
    constexpr std::string_view kSpace = " \t\r\n";
    const size_t begin = passage.find_first_not_of(kSpace);
    if (begin == std::string::npos) continue;
    message += passage.substr(begin, passage.find_last_not_of(kSpace) + 1 - begin);
    message += "\n\n";
  }
  message += question;
  return message;
}

absl::StatusOr<std::vector<int32_t>> RenderPrompt(const model::Tokenizer& tokenizer,
                                                  const PromptStyle& style,
                                                  const PromptRequest& request) {
  std::string message = UserMessage(request.passages, request.question);
  if (request.raw) {
    if (const size_t mark = message.find(kInfillMark);
        mark != std::string::npos && model::InfillingEndId(tokenizer) >= 0) {
      return model::RenderInfilling(tokenizer, std::string_view(message).substr(0, mark),
                                    std::string_view(message).substr(mark + kInfillMark.size()));
    }
    std::vector<int32_t> ids;
    const model::TokenizerSpec& spec = tokenizer.spec();
    if (spec.add_bos && spec.bos_id >= 0) ids.push_back(spec.bos_id);
    model::Encoding encoding = tokenizer.Encode(message);
    ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
    return ids;
  }
  std::vector<ChatMessage> messages;
  if (!style.system_prompt.empty()) {
    messages.push_back({ChatMessage::Role::kSystem, style.system_prompt});
  }
  messages.insert(messages.end(), request.history.begin(), request.history.end());
  messages.push_back({ChatMessage::Role::kUser, std::move(message)});
  return model::RenderChat(tokenizer, style.format, messages);
}

absl::StatusOr<Prompt> FitPrompt(const model::Tokenizer& tokenizer, const PromptStyle& style,
                                 const PromptRequest& request, int64_t max_prompt_tokens) {
  const auto fits = [&](const Prompt& prompt) {
    return static_cast<int64_t>(prompt.ids.size()) <= max_prompt_tokens;
  };
  // Whole passages, from the last one on, leave until the rest fits.
  size_t n_whole = request.passages.size();
  ASSIGN_OR_RETURN(Prompt best, Render(tokenizer, style, request, request.passages));
  if (fits(best)) return best;
  while (n_whole > 0) {
    --n_whole;
    ASSIGN_OR_RETURN(best, Render(tokenizer, style, request, request.passages.first(n_whole)));
    if (fits(best)) break;
  }
  if (!fits(best)) {
    return absl::OutOfRangeError(StrCat("the ", request.question_name, " takes ", best.ids.size(),
                                        " tokens of prompt, at most ", max_prompt_tokens,
                                        " fit into the model's window: shorten it"));
  }
  // The beginning of the first passage that did not fit fills what is left. Joining texts can
  // change tokens at the seams, so the cut is tried and made shorter by what was too much.
  const std::string& last = request.passages[n_whole];
  const model::Encoding encoding = tokenizer.Encode(last);
  std::vector<std::string> passages(request.passages.begin(),
                                    request.passages.begin() + static_cast<ptrdiff_t>(n_whole));
  passages.emplace_back();
  int64_t n_tokens = std::min<int64_t>(static_cast<int64_t>(encoding.ids.size()) - 1,
                                       max_prompt_tokens - static_cast<int64_t>(best.ids.size()));
  while (n_tokens > 0) {
    passages.back() = FirstTokens(last, encoding, static_cast<size_t>(n_tokens));
    if (passages.back().empty()) break;
    ASSIGN_OR_RETURN(Prompt cut, Render(tokenizer, style, request, passages));
    if (fits(cut)) {
      cut.truncated = true;
      return cut;
    }
    n_tokens -= static_cast<int64_t>(cut.ids.size()) - max_prompt_tokens;
  }
  return best;
}

}  // namespace fovea::answer
