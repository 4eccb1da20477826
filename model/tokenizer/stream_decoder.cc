#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace fovea::model {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Moves the whole characters at the front of `pending` to the result; what can never become a
// character turns into U+FFFD.
std::string TakeCharacters(std::string* pending) {
  std::string text;
  size_t pos = 0;
  while (pos < pending->size()) {
    const std::string_view rest = std::string_view(*pending).substr(pos);
    const size_t valid = ValidUtf8Prefix(rest);
    text.append(rest.substr(0, valid));
    pos += valid;
    const Utf8Step step = NextUtf8(rest.substr(valid));
    if (step.status == Utf8Status::kIncomplete) break;
    text.append(kReplacement);
    pos += step.size_bytes;
  }
  pending->erase(0, pos);
  return text;
}

}  // namespace

std::string StreamDecoder::Push(int32_t id) {
  std::string bytes = tokenizer_.TokenBytes(id);
  if (bytes.empty()) return "";
  const TokenizerSpec& spec = tokenizer_.spec();
  // What Decode does to a whole sequence: the dummy prefix is not part of the text.
  if (first_ && spec.kind == TokenizerSpec::Kind::kSentencePiece && spec.add_space_prefix &&
      spec.tokens[id].starts_with("\xE2\x96\x81")) {
    bytes.erase(0, 1);
  }
  first_ = false;
  pending_ += bytes;
  return TakeCharacters(&pending_);
}

std::string StreamDecoder::Finish() {
  std::string text;
  if (!pending_.empty()) text = kReplacement;
  pending_.clear();
  first_ = true;
  return text;
}

}  // namespace fovea::model
