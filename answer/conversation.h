// The turns of a conversation: the recent ones as messages for the prompt, the ones that left the
// model's window as encoded keys and values that later questions attend to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "answer/prompt.h"
#include "base/status.h"
#include "model/tokenizer/chat_template.h"
#include "model/transformer.h"

namespace fovea::answer {

// Not thread-safe.
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

  void Clear();

 private:
  std::vector<model::ChatMessage> messages_;
  std::vector<model::EncodedWindow> session_windows_;
  std::vector<int32_t> last_ids_;  // the end of what was encoded: context of the next window
};

}  // namespace fovea::answer
