// What a question asks for, and what an answer holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "answer/conversation.h"
#include "base/progress.h"
#include "memory/search/attribution.h"
#include "memory/search/searcher.h"
#include "model/tokenizer/chat_template.h"

namespace fovea::answer {

enum class RereadBy { kAttention, kBm25, kBoth };
absl::StatusOr<RereadBy> ParseRereadBy(std::string_view name);  // "attention", "bm25", "both"
std::string_view RereadByName(RereadBy by);

struct AskOptions {
  // Unset: approximate; dense where the memory was encoded as LongLLaMA does.
  std::optional<memory::SearchMode> mode;
  int top_k = 0;  // 0: the adapter's
  int max_tokens = 256;
  float temperature = 0.0f;
  float top_p = 1.0f;  // the likeliest tokens with this share of the probability, in (0, 1]
  uint64_t seed = 0;
  // The answer ends before the first of these texts, wherever tokens begin and end.
  std::vector<std::string> stop;
  int n_sources = 3;
  // Marks in the answer's text, "[2]" behind a sentence, name its source (Answer::marks).
  bool marks = false;
  bool raw = false;  // continue the text as it is, without the chat template
  bool use_memory = true;
  std::optional<int> reread;  // passages in the prompt; unset: what measured best for the model
  std::optional<RereadBy> reread_by;
  // Whether the memory stays on while passages in the prompt are read; unset: as measured best.
  std::optional<bool> reread_memory;
  bool audit = false;
  memory::QueryScope scope;
};

// Passages for a text, without an answer.
struct SearchRequest {
  std::string query;  // UTF-8 without NUL bytes, not empty
  RereadBy by = RereadBy::kBm25;
  int n_passages = 10;
  memory::QueryScope scope = {};
  Progress progress = {};
};

// Streams pieces of the answer that never end within a UTF-8 character; returning false stops.
using StreamCallback = std::function<bool(std::string_view piece)>;

struct Request {
  // An optional system message, which takes the place of the model's own (an empty one: no system
  // message at all); earlier turns, user and assistant by turns; and the question, a user message.
  // All of it is UTF-8 without NUL bytes, else InvalidArgument.
  // What does not fit into the model's window leaves it from the oldest turn on, and is attended to
  // as keys and values instead, where the model has memory layers.
  std::vector<model::ChatMessage> messages;
  AskOptions options;
  // Goes on with this conversation (may be null): its turns come before the question, which with
  // its answer becomes the next turn. `messages` are then the question alone, with or without a
  // system message. What turns had to be computed for is kept in it. Used by one request at a time.
  Conversation* conversation = nullptr;
  StreamCallback stream;  // may be null; called by the thread that runs the request
  // Cancellation is looked for between tokens, between pieces of a prompt and within searches.
  Progress progress;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  uint64_t memory_tokens = 0;  // that the question could see
};

struct Timing {
  double prefill_ms = 0.0;  // from the call to the first token, re-reading included
  double decode_ms_per_token = 0.0;
};

// In an answer's text: "[2]", which names a sentence's source.
struct SourceMark {
  size_t start = 0;  // bytes of the text
  size_t end = 0;
  int source = 0;  // from 1: Answer::sources[source - 1]
};

struct Answer {
  std::string question;
  std::string text;           // with its marks, where they were asked for
  std::string finish_reason;  // "stop", "length", "repetition", "cancelled"
  // Passages that joined the prompt first, then those that the memory layers attended to most; with
  // marks those first that they name, in the order in which the text does.
  std::vector<memory::Passage> sources;
  // In the order of the text; set where they were asked for: behind each sentence of which half the
  // words, stop words aside, are in a passage that joined the prompt, the passage with most of
  // them; else behind each that has a word in common with the passage that the memory layers
  // attended to most while its tokens were made, that passage.
  std::optional<std::vector<SourceMark>> marks;
  std::vector<memory::Passage> reread;  // passages whose text joined the prompt
  // For people: what the answer could not be made from, and why.
  std::vector<std::string> notes;
  Usage usage;
  Timing timing;
  // Of the search of the memory, where it was asked for and a search was made (else a note says why
  // not).
  std::optional<memory::AuditResult> audit;
};

}  // namespace fovea::answer
