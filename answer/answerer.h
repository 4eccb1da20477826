// Questions → answers with sources: prompt, re-reading, generation and attribution in one place,
// used by the command line, the example, and later a server.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "memory/search/attribution.h"
#include "memory/search/searcher.h"
#include "model/tokenizer/chat_template.h"
#include "model/transformer.h"

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
  uint64_t seed = 0;
  int n_sources = 3;
  bool raw = false;  // continue the text as it is, without the chat template
  bool use_memory = true;
  std::optional<int> reread;  // passages in the prompt; unset: what measured best for the model
  std::optional<RereadBy> reread_by;
  // Whether the memory stays on while passages in the prompt are read; unset: as measured best.
  std::optional<bool> reread_memory;
  bool audit = false;
  memory::QueryScope scope;
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

struct Answer {
  std::string question;
  std::string text;
  std::string finish_reason;  // "stop", "length", "repetition", "cancelled"
  // Passages that joined the prompt first, then those that the memory layers attended to most.
  std::vector<memory::Passage> sources;
  std::vector<memory::Passage> reread;  // passages whose text joined the prompt
  // For people: what the answer could not be made from, and why.
  std::vector<std::string> notes;
  Usage usage;
  Timing timing;
  std::optional<memory::AuditResult> audit;
};

// Streams pieces of the answer that never end within a UTF-8 character; returning false stops.
using StreamCallback = std::function<bool(std::string_view piece)>;

// Holds borrowed parts; not thread-safe. One Answerer serves any number of questions; each sees the
// memory as it is when the question is asked.
class Answerer {
 public:
  // `memory` may be null (no memory). FailedPrecondition when it was made by another model.
  static absl::StatusOr<std::unique_ptr<Answerer>> Create(compute::Device* device,
                                                          model::Transformer* model,
                                                          memory::Memory* memory);
  virtual ~Answerer() = default;

  // `cancelled` is checked between tokens; the answer so far is returned then.
  virtual absl::StatusOr<Answer> Ask(const std::string& question, const AskOptions& options,
                                     const StreamCallback& stream, const Progress& progress) = 0;

  // A conversation: like Ask, with the turns so far. Turns that leave the model's window are
  // encoded into a session memory that lives as long as this object.
  virtual absl::StatusOr<Answer> Chat(const std::string& message, const AskOptions& options,
                                      const StreamCallback& stream, const Progress& progress) = 0;
  virtual void ResetChat() = 0;

  // For people, when the model was not trained for memory ("… has no adapter: …"); else empty.
  virtual std::string Hint() const = 0;
};

}  // namespace fovea::answer
