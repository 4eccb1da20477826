#include "model/weights/tokenizer_checks.h"

#include <algorithm>

namespace fovea::model {
namespace {

absl::Status CheckTokenId(std::string_view name, int64_t id, int64_t vocab_size) {
  if (id >= -1 && id < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(name, ": ", id, " is not in the vocabulary of ", vocab_size));
}

}  // namespace

void AddEndToken(int32_t id, TokenizerSpec* spec) {
  std::vector<int32_t>& ends = spec->extra_end_ids;
  if (id < 0 || id == spec->eos_id || std::find(ends.begin(), ends.end(), id) != ends.end()) return;
  ends.push_back(id);
}

void AddKnownEndTokens(TokenizerSpec* spec) {
  static constexpr std::string_view kEndTokens[] = {"<|im_end|>",     "<|eot_id|>", "<|eom_id|>",
                                                    "<|end|>",        "</s>",       "<|endoftext|>",
                                                    "<|end_of_text|>"};
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    if (spec->types[id] == TokenType::kControl &&
        std::find(std::begin(kEndTokens), std::end(kEndTokens), spec->tokens[id]) !=
            std::end(kEndTokens)) {
      AddEndToken(static_cast<int32_t>(id), spec);
    }
  }
}

absl::Status CheckTokenizerSpec(const TokenizerSpec& spec, int64_t vocab_size) {
  if (spec.kind == TokenizerSpec::Kind::kNone) return absl::OkStatus();
  const auto n_tokens = static_cast<int64_t>(spec.tokens.size());
  if (n_tokens == 0 && spec.sentencepiece_model.empty()) {
    return absl::InvalidArgumentError("the tokenizer has no tokens");
  }
  if (n_tokens > vocab_size) {
    return absl::InvalidArgumentError(StrCat(
        "the tokenizer has ", n_tokens, " tokens, the embedding table only ", vocab_size, " rows"));
  }
  if (spec.types.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(
        StrCat("the tokenizer has ", n_tokens, " tokens and ", spec.types.size(), " token types"));
  }
  if (!spec.scores.empty() && spec.scores.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(
        StrCat("the tokenizer has ", n_tokens, " tokens and ", spec.scores.size(), " scores"));
  }
  RETURN_IF_ERROR(CheckTokenId("bos token", spec.bos_id, vocab_size));
  RETURN_IF_ERROR(CheckTokenId("eos token", spec.eos_id, vocab_size));
  for (const int32_t id : spec.extra_end_ids) {
    RETURN_IF_ERROR(CheckTokenId("end token", id, vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace fovea::model
