// Questions → prompts: the model's chat format (or the text as it is), the adapter's system prompt,
// and passages to re-read, cut so that the answer still fits into the model's window.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/tokenizer/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::answer {

// How a model wants to be asked.
struct PromptStyle {
  model::ChatFormat format = model::ChatFormat::kNone;
  std::string system_prompt;  // empty: no system message
};

// The adapter's chat_template and system prompt where it names them, else the model's own template
// without a system message. InvalidArgument for a chat_template that fovea does not know.
absl::StatusOr<PromptStyle> ChoosePromptStyle(const model::MemoryConfig& memory_config,
                                              const model::TokenizerSpec& tokenizer_spec);

// Where a text of a raw request is to be filled in.
inline constexpr std::string_view kInfillMark = "<FILL_ME>";

struct PromptRequest {
  std::span<const model::ChatMessage> history;  // earlier turns; none in raw mode
  std::string question;
  std::string_view question_name = "question";  // what errors call it
  std::span<const std::string> passages;        // texts to re-read, best first
  // Continue the text as it is. With kInfillMark in it once: write what stands there, where the
  // model can (model/tokenizer/chat_template.h).
  bool raw = false;
};

struct Prompt {
  std::vector<int32_t> ids;
  int n_passages = 0;      // that are in it, the first ones
  bool truncated = false;  // the last of them was cut
};

// "<passages separated by blank lines>\n\n<question>": what adapters are trained to read. White
// space around passages is left out.
std::string UserMessage(std::span<const std::string> passages, const std::string& question);

// The whole prompt, however long.
absl::StatusOr<std::vector<int32_t>> RenderPrompt(const model::Tokenizer& tokenizer,
                                                  const PromptStyle& style,
                                                  const PromptRequest& request);

// The prompt in at most `max_prompt_tokens`: as many passages as fit, and the beginning of the next
// one, up to a token boundary. OutOfRange when it is too long without any passage.
absl::StatusOr<Prompt> FitPrompt(const model::Tokenizer& tokenizer, const PromptStyle& style,
                                 const PromptRequest& request, int64_t max_prompt_tokens);

}  // namespace fovea::answer
