// What holds for a tokenizer's parts, whichever file they came from.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace fovea::model {

// Makes `id` one of the tokens that end an answer, unless it is already.
void AddEndToken(int32_t id, TokenizerSpec* spec);

// Adds the tokens that end an answer in the known chat formats and exist as control tokens.
void AddKnownEndTokens(TokenizerSpec* spec);

// InvalidArgument unless ids lie in the vocabulary, `types` (and SentencePiece's `scores`) are as
// long as `tokens`, and the embedding table (of `vocab_size` rows) has a row for every token.
absl::Status CheckTokenizerSpec(const TokenizerSpec& spec, int64_t vocab_size);

}  // namespace fovea::model
