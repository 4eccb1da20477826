// The split of a text into words before byte-pair merges: GPT-2's regular expression and its
// descendants.
//
//   ASSIGN_OR_RETURN(auto pre_tokenizer, PreTokenizer::Create("smollm"));
//   pre_tokenizer->Split("It's 42", [](std::string_view word) { … });  // It | 's | ␠ | 4 | 2
#pragma once

#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::model {

// Immutable and thread-safe.
class PreTokenizer {
 public:
  // "gpt2", "smollm", "llama3", "qwen2". Unimplemented names them; Internal when the regular
  // expression does not compile.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(std::string_view name);
  ~PreTokenizer();

  // Calls `word` with consecutive, non-empty pieces that cover `text`. A piece is whole UTF-8
  // characters, or one byte that belongs to none: no reference says how such bytes are split, so
  // each stands alone, and what is on its two sides is split as two texts.
  void Split(std::string_view text, absl::FunctionRef<void(std::string_view)> word) const;

 private:
  struct Regex;
  explicit PreTokenizer(std::unique_ptr<Regex> regex);
  std::unique_ptr<Regex> regex_;
};

}  // namespace fovea::model
