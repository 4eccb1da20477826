// The tokenizer of SentencePiece vocabularies: LLaMA 2, Mistral, TinyLlama, LongLLaMA.
#pragma once

#include <memory>

#include "base/status.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

// `spec.kind` must be kSentencePiece. Errors as for Tokenizer::Create.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSentencePieceTokenizer(const TokenizerSpec& spec);

}  // namespace fovea::model
