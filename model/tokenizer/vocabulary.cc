#include "model/tokenizer/vocabulary.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "model/tokenizer/byte_alphabet.h"

namespace fovea::model {
namespace {

// "<|im_start|>", "[INST]", "[/INST]": what chat formats are written with.
bool IsWrittenLikeMarker(std::string_view token) {
  if (token.size() > 4 && token.starts_with("<|") && token.ends_with("|>")) return true;
  if (token.size() < 3 || token.front() != '[' || token.back() != ']') return false;
  token = token.substr(1, token.size() - 2);
  if (token.front() == '/') token.remove_prefix(1);
  return std::all_of(token.begin(), token.end(),
                     [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; });
}

// Whether it is how texts have a byte.
bool IsByte(const TokenizerSpec& spec, int32_t id) {
  if (spec.kind != TokenizerSpec::Kind::kByteLevelBpe || spec.types[id] != TokenType::kNormal) {
    return false;
  }
  const std::optional<std::string> bytes = FromByteAlphabet(spec.tokens[id]);
  return bytes.has_value() && bytes->size() == 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Vocabulary>> Vocabulary::Create(TokenizerSpec spec) {
  const size_t n_tokens = spec.tokens.size();
  if (n_tokens == 0) return absl::InvalidArgumentError("tokenizer: the vocabulary has no tokens");
  if (n_tokens > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(StrCat("tokenizer: ", n_tokens, " tokens, ids have 31 bits"));
  }
  if (spec.types.empty()) spec.types.assign(n_tokens, TokenType::kNormal);
  if (spec.types.size() != n_tokens) {
    return absl::InvalidArgumentError(
        StrCat("tokenizer: ", spec.types.size(), " token types, want ", n_tokens));
  }
  const auto check_id = [&](std::string_view what, int32_t id) {
    if (id < static_cast<int64_t>(n_tokens)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        StrCat("tokenizer: ", what, " is ", id, ", want less than ", n_tokens));
  };
  RETURN_IF_ERROR(check_id("bos_id", spec.bos_id));
  RETURN_IF_ERROR(check_id("eos_id", spec.eos_id));
  for (const int32_t id : spec.extra_end_ids) RETURN_IF_ERROR(check_id("an end id", id));

  std::unique_ptr<Vocabulary> vocabulary(new Vocabulary(std::move(spec)));
  const TokenizerSpec& kept = vocabulary->spec_;
  vocabulary->ids_.reserve(n_tokens);
  vocabulary->special_.resize(n_tokens);
  for (size_t id = 0; id < n_tokens; ++id) {
    vocabulary->ids_.emplace(kept.tokens[id], static_cast<int32_t>(id));
    const TokenType type = kept.types[id];
    vocabulary->special_[id] =
        type == TokenType::kControl || type == TokenType::kUnknown ||
        (type == TokenType::kUserDefined && IsWrittenLikeMarker(kept.tokens[id]));
    if (type == TokenType::kUnknown && vocabulary->unknown_id_ < 0) {
      vocabulary->unknown_id_ = static_cast<int32_t>(id);
    }
  }
  const auto set_special = [&](int32_t id) {
    if (id >= 0 && !IsByte(kept, id)) vocabulary->special_[id] = true;
  };
  set_special(kept.bos_id);
  set_special(kept.eos_id);
  for (const int32_t id : kept.extra_end_ids) set_special(id);
  return vocabulary;
}

int32_t Vocabulary::Find(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

bool Vocabulary::IsEnd(int32_t id) const {
  if (id < 0) return false;
  return id == spec_.eos_id || std::find(spec_.extra_end_ids.begin(), spec_.extra_end_ids.end(),
                                         id) != spec_.extra_end_ids.end();
}

AddedTokens::AddedTokens(const Vocabulary& vocabulary, absl::FunctionRef<bool(int32_t)> is_added) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& token = vocabulary.spec().tokens[id];
    if (token.empty() || !is_added(id)) continue;
    ids_.emplace(token, id);
    sizes_.push_back(token.size());
    first_byte_[static_cast<unsigned char>(token[0])] = true;
  }
  std::sort(sizes_.begin(), sizes_.end(), std::greater<>());
  sizes_.erase(std::unique(sizes_.begin(), sizes_.end()), sizes_.end());
}

void AddedTokens::Split(std::string_view text,
                        absl::FunctionRef<void(std::string_view, int32_t)> piece) const {
  size_t begin = 0;  // of the piece that no token has claimed yet
  size_t pos = ids_.empty() ? text.size() : 0;
  while (pos < text.size()) {
    if (!first_byte_[static_cast<unsigned char>(text[pos])]) {
      ++pos;
      continue;
    }
    size_t matched = 0;
    for (const size_t size : sizes_) {
      if (size > text.size() - pos) continue;
      const auto it = ids_.find(text.substr(pos, size));
      if (it == ids_.end()) continue;
      if (pos > begin) piece(text.substr(begin, pos - begin), -1);
      piece(text.substr(pos, size), it->second);
      matched = size;
      break;
    }
    pos += std::max<size_t>(matched, 1);
    if (matched > 0) begin = pos;
  }
  if (begin < text.size()) piece(text.substr(begin), -1);
}

}  // namespace fovea::model
