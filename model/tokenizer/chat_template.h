// Prompt formats of instruction-tuned models, recognised from the model's own Jinja template.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

// kQwen3: ChatML of a model that may think before it answers (Qwen3, arXiv 2505.09388). It is asked
// not to, by an empty block of thoughts before its answer.
enum class ChatFormat {
  kNone,
  kChatMl,
  kLlama2,
  kLlama3,
  kMistral,
  kZephyr,
  kLongLlama,
  kQwen3,
};

// From what the Jinja source writes ("<|im_start|>", "[INST]", …); kNone when nothing is known.
ChatFormat RecognizeChatFormat(std::string_view jinja_template);
// "none", "chatml", "llama2", "llama3", "mistral", "zephyr", "longllama", "qwen3". InvalidArgument
// lists them.
absl::StatusOr<ChatFormat> ParseChatFormat(std::string_view name);
std::string_view ChatFormatName(ChatFormat format);

struct ChatMessage {
  enum class Role { kSystem, kUser, kAssistant };
  Role role = Role::kUser;
  std::string content;
};
std::string_view RoleName(ChatMessage::Role role);  // "system", "user", "assistant"

// The ids of a conversation, ending where the assistant's answer begins. BOS is added where the
// format or the tokenizer's spec has one. Only the format's own markers become special tokens:
// what users wrote is encoded as plain text.
// InvalidArgument when the vocabulary lacks a marker of the format.
absl::StatusOr<std::vector<int32_t>> RenderChat(const Tokenizer& tokenizer, ChatFormat format,
                                                std::span<const ChatMessage> messages);

// The infilling prompt of Code Llama (Rozière et al. 2023, arXiv 2308.12950, section 2.3): what
// stands between `prefix` and `suffix` is to be written. NotFound when the vocabulary has no
// infilling tokens.
absl::StatusOr<std::vector<int32_t>> RenderInfilling(const Tokenizer& tokenizer,
                                                     std::string_view prefix,
                                                     std::string_view suffix);
// Ends an infilling; −1 where the vocabulary has no such token.
int32_t InfillingEndId(const Tokenizer& tokenizer);

// The ids that end an answer in this format, over and above Tokenizer::IsEnd.
std::vector<int32_t> ChatEndIds(const Tokenizer& tokenizer, ChatFormat format);

// The id that closes the assistant's turn in this format; where it has none, the tokenizer's first
// end; −1 where that has none either.
int32_t ClosingId(const Tokenizer& tokenizer, ChatFormat format);

}  // namespace fovea::model
