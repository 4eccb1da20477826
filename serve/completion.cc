#include "serve/completion.h"

#include <openssl/rand.h>

#include <array>
#include <ctime>
#include <limits>
#include <utility>

#include "memory/search/searcher.h"
#include "serve/fields.h"

namespace fovea::serve {
namespace {

using model::ChatMessage;

constexpr int kMaxInt = std::numeric_limits<int>::max();

// A content is a text, or a list of parts with texts.
absl::StatusOr<std::string> ContentText(const Json& message) {
  const auto content = message.find("content");
  if (content != message.end() && content->is_string()) return content->get<std::string>();
  std::string text;
  if (content == message.end() || !content->is_array()) {
    return absl::InvalidArgumentError("content: want a text");
  }
  for (const Json& part : *content) {
    const auto type = part.find("type");
    const auto part_text = part.find("text");
    if (!part.is_object() || type == part.end() || *type != "text" || part_text == part.end() ||
        !part_text->is_string()) {
      return absl::InvalidArgumentError("content: want parts of type text, nothing else is read");
    }
    text += part_text->get<std::string>();
  }
  return text;
}

absl::StatusOr<ChatMessage> ToMessage(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("want an object");
  const auto role = json.find("role");
  const std::string name = role != json.end() && role->is_string() ? role->get<std::string>() : "";
  ChatMessage message;
  if (name == "system" || name == "developer") {
    message.role = ChatMessage::Role::kSystem;
  } else if (name == "user") {
    message.role = ChatMessage::Role::kUser;
  } else if (name == "assistant") {
    message.role = ChatMessage::Role::kAssistant;
  } else {
    return absl::InvalidArgumentError("role: want system, developer, user or assistant");
  }
  ASSIGN_OR_RETURN(message.content, ContentText(json));
  return message;
}

absl::Status ReadMessages(const Json& json, answer::Request* request) {
  const auto messages = json.find("messages");
  if (messages == json.end() || !messages->is_array() || messages->empty()) {
    return absl::InvalidArgumentError("messages: want a list of messages, the question last");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    absl::StatusOr<ChatMessage> message = ToMessage((*messages)[i]);
    if (!message.ok()) return Annotate(message.status(), StrCat("messages[", i, "]"));
    request->messages.push_back(*std::move(message));
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(Fields* fields, answer::Request* request) {
  std::vector<std::string> prompts = fields->Texts("prompt");
  RETURN_IF_ERROR(fields->status());
  if (prompts.size() != 1) {
    return absl::InvalidArgumentError(StrCat("prompt: want one text, these are ", prompts.size()));
  }
  request->messages.push_back({ChatMessage::Role::kUser, std::move(prompts[0])});
  request->options.raw = true;
  return absl::OkStatus();
}

absl::Status ReadOwnOptions(const Json& json, answer::AskOptions* ask) {
  const auto object = json.find("fovea");
  if (object == json.end() || object->is_null()) return absl::OkStatus();
  if (!object->is_object()) return absl::InvalidArgumentError("fovea: want an object");
  Fields fields(*object, "fovea");
  fields.AllowOnly({"collections", "documents", "memory", "mode", "top_k", "sources", "marks",
                    "reread", "reread_by", "reread_memory"});
  ask->scope.collections = fields.Texts("collections");
  ask->scope.documents = fields.Texts("documents");
  ask->use_memory = fields.Bool("memory", true);
  ask->top_k = static_cast<int>(fields.Integer("top_k", 0, 1, 1 << 20));
  ask->n_sources = static_cast<int>(fields.Integer("sources", ask->n_sources, 0, kMaxInt));
  ask->marks = fields.Bool("marks", false);
  if (fields.Find("reread") != nullptr) {
    ask->reread = static_cast<int>(fields.Integer("reread", 0, 0, kMaxInt));
  }
  ask->reread_memory = fields.OnOff("reread_memory");
  if (fields.Find("reread_by") != nullptr) {
    const absl::StatusOr<answer::RereadBy> by = answer::ParseRereadBy(fields.Text("reread_by", ""));
    if (by.ok()) ask->reread_by = *by;
    if (!by.ok()) fields.Fail("reread_by", "want attention, bm25 or both");
  }
  if (const std::string name = fields.Text("mode", ""); !name.empty()) {
    const absl::StatusOr<memory::SearchMode> mode = memory::ParseSearchMode(name);
    if (mode.ok()) ask->mode = *mode;
    if (!mode.ok()) fields.Fail("mode", "want approximate, exact or dense");
  }
  return fields.status();
}

// What a client may ask for and does not get: better an error than another answer than it wanted.
void RefuseOthers(CompletionKind kind, Fields* fields) {
  fields->Refuse("n", 1);
  fields->Refuse("frequency_penalty", 0);
  fields->Refuse("presence_penalty", 0);
  fields->Refuse("logit_bias", Json::object());
  if (kind == CompletionKind::kText) {
    fields->Refuse("best_of", 1);
    fields->Refuse("echo", false);
    fields->Refuse("suffix", "");
    fields->Refuse("logprobs");
    return;
  }
  fields->Refuse("logprobs", false);
  fields->Refuse("top_logprobs", 0);
  fields->Refuse("tools", Json::array());
  fields->Refuse("functions", Json::array());
  fields->Refuse("audio");
  fields->Refuse("response_format", Json({{"type", "text"}}));
  fields->Refuse("modalities", Json::array({"text"}));
}

std::string MakeId(CompletionKind kind) {
  std::array<unsigned char, 12> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  std::string id = kind == CompletionKind::kChat ? "chatcmpl-" : "cmpl-";
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (const unsigned char byte : bytes) {
    id += kDigits[byte >> 4];
    id += kDigits[byte & 15];
  }
  return id;
}

// One of OpenAI's words; null of an answer that was not finished, for which they have none: what
// follows it is an error.
Json FinishReason(const answer::Answer& answer) {
  if (answer.finish_reason == "cancelled") return nullptr;
  return answer.finish_reason == "length" ? "length" : "stop";
}

Json UsageJson(const answer::Answer& answer) {
  return {{"prompt_tokens", answer.usage.prompt_tokens},
          {"completion_tokens", answer.usage.completion_tokens},
          {"total_tokens", answer.usage.prompt_tokens + answer.usage.completion_tokens}};
}

void AddOwnFields(const answer::Answer& answer, Json* json) {
  Json sources = Json::array();
  for (const memory::Passage& passage : answer.sources) {
    Json source = answer::ToJson(passage);
    source["path"] = passage.source;
    sources.push_back(std::move(source));
  }
  (*json)["fovea_sources"] = std::move(sources);
  if (answer.marks.has_value()) (*json)["fovea_marks"] = answer::ToJson(*answer.marks);
  (*json)["fovea_notes"] = answer.notes;
  (*json)["fovea_finish_reason"] = answer.finish_reason;
  (*json)["fovea_memory_tokens"] = answer.usage.memory_tokens;
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletion(CompletionKind kind, const Json& json,
                                                  const std::string& served_model) {
  CompletionRequest completion;
  answer::Request& request = completion.request;
  answer::AskOptions& ask = request.options;
  Fields fields(json);
  const std::string model = fields.Text("model", served_model);
  RETURN_IF_ERROR(fields.status());
  if (model != served_model) {
    return absl::NotFoundError(
        StrCat("model: the one that is served here is \"", served_model, "\""));
  }
  if (kind == CompletionKind::kChat) {
    RETURN_IF_ERROR(ReadMessages(json, &request));
  } else {
    RETURN_IF_ERROR(ReadPrompt(&fields, &request));
  }
  const int64_t max_tokens = fields.Integer("max_tokens", ask.max_tokens, 0, kMaxInt);
  ask.max_tokens =
      static_cast<int>(fields.Integer("max_completion_tokens", max_tokens, 0, kMaxInt));
  ask.temperature = static_cast<float>(fields.Number("temperature", ask.temperature));
  ask.top_p = static_cast<float>(fields.Number("top_p", ask.top_p));
  ask.seed = static_cast<uint64_t>(fields.Integer("seed", 0));
  ask.stop = fields.Texts("stop");
  RefuseOthers(kind, &fields);
  completion.streams = fields.Bool("stream", false);
  if (const Json* const options = fields.Find("stream_options"); options != nullptr) {
    if (!options->is_object()) return absl::InvalidArgumentError("stream_options: want an object");
    Fields stream_fields(*options, "stream_options");
    completion.includes_usage = stream_fields.Bool("include_usage", false);
    RETURN_IF_ERROR(stream_fields.status());
  }
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(ReadOwnOptions(json, &ask));
  return completion;
}

CompletionWriter::CompletionWriter(CompletionKind kind, std::string model)
    : kind_(kind),
      model_(std::move(model)),
      id_(MakeId(kind)),
      created_unix_s_(static_cast<int64_t>(std::time(nullptr))) {}

Json CompletionWriter::Frame(std::string_view object) const {
  return {{"id", id_}, {"object", object}, {"created", created_unix_s_}, {"model", model_}};
}

Json CompletionWriter::Chunk(Json delta_or_text, const Json& finish_reason) const {
  const bool is_chat = kind_ == CompletionKind::kChat;
  Json chunk = Frame(is_chat ? "chat.completion.chunk" : "text_completion");
  chunk["choices"] = Json::array({{{"index", 0},
                                   {is_chat ? "delta" : "text", std::move(delta_or_text)},
                                   {"logprobs", nullptr},
                                   {"finish_reason", finish_reason}}});
  return chunk;
}

Json CompletionWriter::Whole(const answer::Answer& answer) const {
  const bool is_chat = kind_ == CompletionKind::kChat;
  Json whole = Frame(is_chat ? "chat.completion" : "text_completion");
  Json choice = {{"index", 0}};
  if (is_chat) {
    choice["message"] = {{"role", "assistant"}, {"content", answer.text}};
  } else {
    choice["text"] = answer.text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = FinishReason(answer);
  whole["choices"] = Json::array({std::move(choice)});
  whole["usage"] = UsageJson(answer);
  AddOwnFields(answer, &whole);
  return whole;
}

Json CompletionWriter::Piece(std::string_view text) {
  if (kind_ == CompletionKind::kText) return Chunk(text, nullptr);
  Json delta = Json::object();
  if (!std::exchange(is_begun_, true)) delta["role"] = "assistant";
  delta["content"] = text;
  return Chunk(std::move(delta), nullptr);
}

Json CompletionWriter::End(const answer::Answer& answer) {
  Json delta = "";
  if (kind_ == CompletionKind::kChat) {
    delta = Json::object();
    if (!std::exchange(is_begun_, true)) delta = {{"role", "assistant"}, {"content", ""}};
  }
  Json end = Chunk(std::move(delta), FinishReason(answer));
  AddOwnFields(answer, &end);
  return end;
}

Json CompletionWriter::UsageOnly(const answer::Answer& answer) const {
  Json json = Frame(kind_ == CompletionKind::kChat ? "chat.completion.chunk" : "text_completion");
  json["choices"] = Json::array();
  json["usage"] = UsageJson(answer);
  return json;
}

std::string ServerSentEvent(const Json& json) {
  return StrCat("data: ", answer::JsonText(json), "\n\n");
}

}  // namespace fovea::serve
