// The turns of a conversation: the recent ones as messages for the prompt, the ones that left the
// model's window as encoded keys and values that later questions attend to, and the local context
// that its last prompt left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "answer/prompt.h"
#include "answer/prompt_context.h"
#include "base/status.h"
#include "memory/search/searcher.h"
#include "model/tokenizer/chat_template.h"
#include "model/transformer.h"

namespace fovea::answer {

// What the prompts of a conversation run with. When it changes, what the local context holds was
// computed with something else.
struct MemoryView {
  uint64_t epoch = 0;
  size_t n_session_windows = 0;
  std::optional<memory::SearchMode> mode;
  int top_k = 0;
  bool attends = false;
  std::vector<std::string> collections;
  std::vector<std::string> documents;
  bool operator==(const MemoryView&) const = default;
};

// Not thread-safe: one request at a time (Request::conversation). The device of the model that its
// requests ran on outlives it.
class Conversation {
 public:
  // Whole turns, question and answer in turn, oldest first.
  std::span<const model::ChatMessage> messages() const { return messages_; }
  bool empty() const { return messages_.empty(); }
  void AddTurn(std::string question, std::string answer);

  // Takes the oldest turn out of messages() and appends it to session_windows(). A model without
  // memory layers cannot remember it: the turn is then forgotten. Needs a turn. After an error the
  // turn is still in messages().
  absl::Status RetireOldestTurn(const PromptStyle& style, model::Transformer* model);

  // What MemorySearcher::AddSessionWindow takes, oldest first.
  const std::vector<model::EncodedWindow>& session_windows() const { return session_windows_; }

  // What its prompts run in. Cleared by UseView when it was run with another view.
  PromptContext& context() { return context_; }
  void UseView(MemoryView view);

  void Clear();

 private:
  std::vector<model::ChatMessage> messages_;
  std::vector<model::EncodedWindow> session_windows_;
  std::vector<int32_t> last_ids_;  // the end of what was encoded: context of the next window
  PromptContext context_;
  MemoryView view_;
};

}  // namespace fovea::answer
