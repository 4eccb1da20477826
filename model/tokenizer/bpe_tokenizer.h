// The tokenizer of byte-level BPE vocabularies: gpt2, smollm, llama3, qwen2.
#pragma once

#include <memory>

#include "base/status.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

// `spec.kind` must be kByteLevelBpe. Errors as for Tokenizer::Create.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateBpeTokenizer(const TokenizerSpec& spec);

}  // namespace fovea::model
