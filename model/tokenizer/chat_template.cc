#include "model/tokenizer/chat_template.h"

#include <array>
#include <string>
#include <utility>

namespace fovea::model {
namespace {

using Role = ChatMessage::Role;

struct NamedFormat {
  ChatFormat format;
  std::string_view name;
};

constexpr std::array<NamedFormat, 8> kFormats = {{{ChatFormat::kNone, "none"},
                                                  {ChatFormat::kChatMl, "chatml"},
                                                  {ChatFormat::kLlama2, "llama2"},
                                                  {ChatFormat::kLlama3, "llama3"},
                                                  {ChatFormat::kMistral, "mistral"},
                                                  {ChatFormat::kZephyr, "zephyr"},
                                                  {ChatFormat::kLongLlama, "longllama"},
                                                  {ChatFormat::kQwen3, "qwen3"}}};

// The formats of LLaMA trim what they are given.
std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

// A prompt in the making: text is plain, markers are ids. Text between two markers is encoded as
// one, as the tokenizers of the templates do.
class Prompt {
 public:
  Prompt(const Tokenizer& tokenizer, ChatFormat format) : tokenizer_(tokenizer), format_(format) {}

  void Text(std::string_view text) { text_ += text; }
  void Id(int32_t id) {
    Flush();
    ids_.push_back(id);
  }
  // The text so far is encoded apart from what follows.
  void Flush() {
    if (text_.empty()) return;
    const Encoding encoding = tokenizer_.Encode(text_, /*parse_special=*/false);
    ids_.insert(ids_.end(), encoding.ids.begin(), encoding.ids.end());
    text_.clear();
  }

  absl::StatusOr<int32_t> Marker(std::string_view token) const {
    const int32_t id = tokenizer_.TokenId(token);
    if (id >= 0) return id;
    return absl::InvalidArgumentError(
        StrCat("chat format ", ChatFormatName(format_), ": the vocabulary has no token \"", token,
               "\"; pass the format that the model was trained with, or \"none\""));
  }
  // A marker that some vocabularies have as a token and others spell out.
  void MarkerOrText(std::string_view token) {
    const int32_t id = tokenizer_.TokenId(token);
    if (id >= 0) {
      Id(id);
    } else {
      Text(token);
    }
  }
  absl::StatusOr<int32_t> Bos(std::string_view token) const {
    if (tokenizer_.spec().bos_id >= 0) return tokenizer_.spec().bos_id;
    return Marker(token);
  }
  absl::StatusOr<int32_t> Eos() const {
    if (tokenizer_.spec().eos_id >= 0) return tokenizer_.spec().eos_id;
    return Marker("</s>");
  }
  // BOS, if the vocabulary's own rule is to begin with one. Not before `first_id` when the two are
  // the same token.
  void BosOfSpec(int32_t first_id = -1) {
    const TokenizerSpec& spec = tokenizer_.spec();
    if (spec.add_bos && spec.bos_id >= 0 && spec.bos_id != first_id) Id(spec.bos_id);
  }

  std::vector<int32_t> Finish() {
    Flush();
    return std::move(ids_);
  }

 private:
  const Tokenizer& tokenizer_;
  const ChatFormat format_;
  std::string text_;
  std::vector<int32_t> ids_;
};

// Messages joined by empty lines: what a model without a chat format continues.
void RenderNone(std::span<const ChatMessage> messages, Prompt* prompt) {
  prompt->BosOfSpec();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (i > 0) prompt->Text("\n\n");
    prompt->Text(messages[i].content);
  }
}

absl::Status RenderChatMl(std::span<const ChatMessage> messages, Prompt* prompt) {
  ASSIGN_OR_RETURN(const int32_t start, prompt->Marker("<|im_start|>"));
  ASSIGN_OR_RETURN(const int32_t end, prompt->Marker("<|im_end|>"));
  prompt->BosOfSpec(start);
  for (const ChatMessage& message : messages) {
    prompt->Id(start);
    prompt->Text(StrCat(RoleName(message.role), "\n", message.content));
    prompt->Id(end);
    prompt->Text("\n");
  }
  prompt->Id(start);
  prompt->Text("assistant\n");
  return absl::OkStatus();
}

// As Qwen3's template with enable_thinking=false. What the model thought in earlier turns is left
// out, as in the template.
absl::Status RenderQwen3(std::span<const ChatMessage> messages, Prompt* prompt) {
  constexpr std::string_view kEndOfThoughts = "</think>";
  std::vector<ChatMessage> said(messages.begin(), messages.end());
  for (ChatMessage& message : said) {
    const size_t end = message.content.rfind(kEndOfThoughts);
    if (message.role != Role::kAssistant || end == std::string::npos) continue;
    const size_t begin = message.content.find_first_not_of('\n', end + kEndOfThoughts.size());
    message.content.erase(0, begin);
  }
  RETURN_IF_ERROR(RenderChatMl(said, prompt));
  prompt->MarkerOrText("<think>");
  prompt->Text("\n\n");
  prompt->MarkerOrText(kEndOfThoughts);
  prompt->Text("\n\n");
  return absl::OkStatus();
}

absl::Status RenderLlama3(std::span<const ChatMessage> messages, Prompt* prompt) {
  ASSIGN_OR_RETURN(const int32_t bos, prompt->Bos("<|begin_of_text|>"));
  ASSIGN_OR_RETURN(const int32_t start, prompt->Marker("<|start_header_id|>"));
  ASSIGN_OR_RETURN(const int32_t end, prompt->Marker("<|end_header_id|>"));
  ASSIGN_OR_RETURN(const int32_t end_of_turn, prompt->Marker("<|eot_id|>"));
  prompt->Id(bos);
  const auto header = [&](Role role) {
    prompt->Id(start);
    prompt->Text(RoleName(role));
    prompt->Id(end);
    prompt->Text("\n\n");
  };
  for (const ChatMessage& message : messages) {
    header(message.role);
    prompt->Text(Trim(message.content));
    prompt->Id(end_of_turn);
  }
  header(Role::kAssistant);
  return absl::OkStatus();
}

// The formats below have no role for the system: its words go into the user's next message, or are
// a message of the user's where none follows.
std::vector<ChatMessage> FoldSystem(std::span<const ChatMessage> messages, std::string_view before,
                                    std::string_view after) {
  std::vector<ChatMessage> folded;
  std::string system;
  bool has_system = false;
  for (const ChatMessage& message : messages) {
    if (message.role == Role::kSystem) {
      if (has_system) system += "\n\n";
      system += Trim(message.content);
      has_system = true;
      continue;
    }
    folded.push_back({message.role, std::string(Trim(message.content))});
    if (message.role == Role::kUser && has_system) {
      folded.back().content = StrCat(before, system, after, folded.back().content);
      has_system = false;
      system.clear();
    }
  }
  if (has_system) folded.push_back({Role::kUser, std::move(system)});
  return folded;
}

absl::Status RenderLlama2(std::span<const ChatMessage> messages, Prompt* prompt) {
  ASSIGN_OR_RETURN(const int32_t bos, prompt->Bos("<s>"));
  ASSIGN_OR_RETURN(const int32_t eos, prompt->Eos());
  bool in_turn = false;
  for (const ChatMessage& message : FoldSystem(messages, "<<SYS>>\n", "\n<</SYS>>\n\n")) {
    // Each exchange is a sequence of its own.
    if (!in_turn) prompt->Id(bos);
    in_turn = true;
    if (message.role == Role::kUser) {
      prompt->Text(StrCat("[INST] ", message.content, " [/INST]"));
    } else {
      prompt->Text(StrCat(" ", message.content, " "));
      prompt->Id(eos);
      in_turn = false;
    }
  }
  return absl::OkStatus();
}

absl::Status RenderMistral(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                           Prompt* prompt) {
  ASSIGN_OR_RETURN(const int32_t bos, prompt->Bos("<s>"));
  ASSIGN_OR_RETURN(const int32_t eos, prompt->Eos());
  prompt->Id(bos);
  // Since version 3 of the format its brackets are tokens; before, they are text.
  const int32_t begin = tokenizer.TokenId("[INST]");
  const int32_t end = tokenizer.TokenId("[/INST]");
  const bool has_markers = begin >= 0 && end >= 0;
  for (const ChatMessage& message : FoldSystem(messages, "", "\n\n")) {
    if (message.role == Role::kAssistant) {
      prompt->Text(message.content);
      prompt->Id(eos);
    } else if (has_markers) {
      prompt->Id(begin);
      prompt->Text(message.content);
      prompt->Id(end);
    } else {
      prompt->Text(StrCat("[INST] ", message.content, " [/INST]"));
      // The reference encodes every message by itself.
      prompt->Flush();
    }
  }
  return absl::OkStatus();
}

absl::Status RenderZephyr(std::span<const ChatMessage> messages, Prompt* prompt) {
  ASSIGN_OR_RETURN(const int32_t eos, prompt->Eos());
  prompt->BosOfSpec();
  for (const ChatMessage& message : messages) {
    prompt->MarkerOrText(StrCat("<|", RoleName(message.role), "|>"));
    prompt->Text(StrCat("\n", message.content));
    prompt->Id(eos);
    prompt->Text("\n");
  }
  prompt->MarkerOrText("<|assistant|>");
  prompt->Text("\n");
  return absl::OkStatus();
}

// LongLLaMA-Instruct and LongLLaMA-Code-Instruct: plain text, every part encoded by itself, as
// their fine-tuning did.
absl::Status RenderLongLlama(std::span<const ChatMessage> messages, Prompt* prompt) {
  // What both models were tuned with, as their authors publish it.
  constexpr std::string_view kSystem =
      "A chat between a user (denoted as USER:) and an artificial intelligence assistant (denoted "
      "as ASSISTANT:). The assistant gives helpful, detailed, and polite answers to the user's "
      "questions.";
  ASSIGN_OR_RETURN(const int32_t bos, prompt->Bos("<s>"));
  ASSIGN_OR_RETURN(const int32_t eos, prompt->Eos());
  const auto part = [&](std::string_view text) {
    prompt->Text(text);
    prompt->Flush();
  };
  prompt->Id(bos);
  const bool has_system = !messages.empty() && messages.front().role == Role::kSystem;
  part(StrCat(has_system ? messages.front().content : std::string(kSystem), "\n\n"));
  for (const ChatMessage& message : messages.subspan(has_system ? 1 : 0)) {
    part(message.role == Role::kAssistant ? "\nASSISTANT: " : "\nUSER: ");
    part(Trim(message.content));
    if (message.role == Role::kAssistant) prompt->Id(eos);
  }
  part("\nASSISTANT: ");
  return absl::OkStatus();
}

}  // namespace

std::string_view RoleName(ChatMessage::Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
  }
  return "user";
}

absl::StatusOr<std::vector<int32_t>> RenderInfilling(const Tokenizer& tokenizer,
                                                     std::string_view prefix,
                                                     std::string_view suffix) {
  const int32_t pre = tokenizer.TokenId("▁<PRE>");
  const int32_t suf = tokenizer.TokenId("▁<SUF>");
  const int32_t mid = tokenizer.TokenId("▁<MID>");
  if (pre < 0 || suf < 0 || mid < 0) {
    return absl::NotFoundError(
        "the vocabulary has no infilling tokens (▁<PRE>, ▁<SUF>, ▁<MID>): take a Code Llama model");
  }
  std::vector<int32_t> ids;
  if (tokenizer.spec().bos_id >= 0) ids.push_back(tokenizer.spec().bos_id);
  ids.push_back(pre);
  for (const int32_t id : tokenizer.Encode(prefix).ids) ids.push_back(id);
  ids.push_back(suf);
  // The suffix goes on in the middle of a text: it is encoded behind a character that no vocabulary
  // joins with others, so that it gets no dummy prefix; the character's tokens are left out.
  constexpr std::string_view kBefore = "☺";
  const Encoding encoding = tokenizer.Encode(StrCat(kBefore, suffix));
  for (size_t t = 0; t < encoding.ids.size(); ++t) {
    if (encoding.ends[t] > kBefore.size()) ids.push_back(encoding.ids[t]);
  }
  ids.push_back(mid);
  return ids;
}

int32_t InfillingEndId(const Tokenizer& tokenizer) { return tokenizer.TokenId("▁<EOT>"); }

ChatFormat RecognizeChatFormat(std::string_view jinja_template) {
  const auto has = [&](std::string_view text) {
    return jinja_template.find(text) != std::string_view::npos;
  };
  if (has("<|im_start|>")) {
    // A model that always thinks, or never does, has no such switch.
    return has("enable_thinking") && has("</think>") ? ChatFormat::kQwen3 : ChatFormat::kChatMl;
  }
  if (has("<|start_header_id|>")) return ChatFormat::kLlama3;
  // Phi-3 has these roles too, but ends a message with a token of its own; ChatGLM begins with one.
  if (has("<|user|>") && has("<|assistant|>") && !has("<|end|>") && !has("[gMASK]")) {
    return ChatFormat::kZephyr;
  }
  if (has("[INST]")) return has("<<SYS>>") ? ChatFormat::kLlama2 : ChatFormat::kMistral;
  return ChatFormat::kNone;
}

absl::StatusOr<ChatFormat> ParseChatFormat(std::string_view name) {
  std::string known;
  for (const NamedFormat& format : kFormats) {
    if (format.name == name) return format.format;
    known += StrCat(known.empty() ? "" : ", ", format.name);
  }
  return absl::InvalidArgumentError(
      StrCat("chat format \"", name, "\" is not known: want one of ", known));
}

std::string_view ChatFormatName(ChatFormat format) {
  for (const NamedFormat& named : kFormats) {
    if (named.format == format) return named.name;
  }
  return "none";
}

absl::StatusOr<std::vector<int32_t>> RenderChat(const Tokenizer& tokenizer, ChatFormat format,
                                                std::span<const ChatMessage> messages) {
  Prompt prompt(tokenizer, format);
  switch (format) {
    case ChatFormat::kNone:
      RenderNone(messages, &prompt);
      break;
    case ChatFormat::kChatMl:
      RETURN_IF_ERROR(RenderChatMl(messages, &prompt));
      break;
    case ChatFormat::kLlama2:
      RETURN_IF_ERROR(RenderLlama2(messages, &prompt));
      break;
    case ChatFormat::kLlama3:
      RETURN_IF_ERROR(RenderLlama3(messages, &prompt));
      break;
    case ChatFormat::kMistral:
      RETURN_IF_ERROR(RenderMistral(tokenizer, messages, &prompt));
      break;
    case ChatFormat::kZephyr:
      RETURN_IF_ERROR(RenderZephyr(messages, &prompt));
      break;
    case ChatFormat::kLongLlama:
      RETURN_IF_ERROR(RenderLongLlama(messages, &prompt));
      break;
    case ChatFormat::kQwen3:
      RETURN_IF_ERROR(RenderQwen3(messages, &prompt));
      break;
  }
  return prompt.Finish();
}

namespace {

// What ends an answer; first what its format closes it with. A marker that begins a turn also ends
// one: small models forget to close theirs.
std::vector<std::string_view> EndMarkers(ChatFormat format) {
  switch (format) {
    case ChatFormat::kNone:
    case ChatFormat::kLongLlama:
      break;
    case ChatFormat::kChatMl:
    case ChatFormat::kQwen3:
      return {"<|im_end|>", "<|im_start|>", "<|endoftext|>"};
    case ChatFormat::kLlama3:
      return {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|start_header_id|>"};
    case ChatFormat::kLlama2:
    case ChatFormat::kMistral:
      return {"</s>", "[INST]"};
    case ChatFormat::kZephyr:
      return {"</s>", "<|user|>", "<|system|>", "<|endoftext|>"};
  }
  return {};
}

}  // namespace

std::vector<int32_t> ChatEndIds(const Tokenizer& tokenizer, ChatFormat format) {
  std::vector<int32_t> ids;
  for (const std::string_view token : EndMarkers(format)) {
    const int32_t id = tokenizer.TokenId(token);
    if (id >= 0 && !tokenizer.IsEnd(id)) ids.push_back(id);
  }
  return ids;
}

int32_t ClosingId(const Tokenizer& tokenizer, ChatFormat format) {
  for (const std::string_view token : EndMarkers(format)) {
    if (const int32_t id = tokenizer.TokenId(token); id >= 0) return id;
  }
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsEnd(id)) return id;
  }
  return -1;
}

}  // namespace fovea::model
