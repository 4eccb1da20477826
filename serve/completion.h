// OpenAI's completions: their requests as questions, and answers as what their clients read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "answer/json.h"
#include "answer/request.h"
#include "base/status.h"

namespace fovea::serve {

using answer::Json;

enum class CompletionKind {
  kChat,  // /v1/chat/completions: messages, in the model's chat format
  kText,  // /v1/completions: a text that is continued as it is, `fovea ask --raw`
};

struct CompletionRequest {
  answer::Request request;
  bool streams = false;
  bool includes_usage = false;  // stream_options.include_usage
};

// From the fields that OpenAI's API documents, as far as they can be met; the defaults are those of
// `fovea ask` (temperature 0, 256 tokens). InvalidArgument names a field that is wrong or asks for
// something that is not offered. NotFound where `model` names another one than `served_model`.
// The object "fovea" of the request has what is fovea's own: collections, documents, memory, mode,
// top_k, sources, marks, reread, reread_by, reread_memory.
absl::StatusOr<CompletionRequest> ParseCompletion(CompletionKind kind, const Json& json,
                                                  const std::string& served_model);

// Writes the objects of one answer.
class CompletionWriter {
 public:
  CompletionWriter(CompletionKind kind, std::string model);

  Json Whole(const answer::Answer& answer) const;
  // A piece of the answer; the first one names the role.
  Json Piece(std::string_view text);
  // After the last piece: why it ended (null where it was not finished), and the sources.
  Json End(const answer::Answer& answer);
  Json UsageOnly(const answer::Answer& answer) const;

 private:
  Json Frame(std::string_view object) const;
  Json Chunk(Json delta_or_text, const Json& finish_reason) const;

  const CompletionKind kind_;
  const std::string model_;
  const std::string id_;
  const int64_t created_unix_s_;
  bool is_begun_ = false;
};

// A message of a stream of server-sent events.
std::string ServerSentEvent(const Json& json);
inline constexpr std::string_view kEndOfEvents = "data: [DONE]\n\n";

}  // namespace fovea::serve
