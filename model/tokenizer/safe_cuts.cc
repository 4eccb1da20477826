#include "model/tokenizer/safe_cuts.h"

#include "model/tokenizer/utf8.h"

namespace fovea::model {
namespace {

constexpr uint32_t kSpaceMark = 0xE29681;  // U+2581, as below

// The bytes of the character at the start of `text`, which it is removed from.
uint32_t TakeCharacter(std::string_view* text) {
  const Utf8Step step = NextUtf8(*text);
  uint32_t character = 0;
  for (size_t i = 0; i < step.size_bytes; ++i) {
    character = character << 8 | static_cast<unsigned char>((*text)[i]);
  }
  text->remove_prefix(step.size_bytes);
  return character == ' ' ? kSpaceMark : character;
}

}  // namespace

void SafeCuts::AddPiece(std::string_view piece) {
  if (piece.empty()) return;
  uint64_t left = TakeCharacter(&piece);
  while (!piece.empty()) {
    const uint32_t right = TakeCharacter(&piece);
    neighbours_.insert(left << 32 | right);
    left = right;
  }
}

size_t SafeCuts::Next(std::string_view text, size_t position) const {
  if (position >= text.size()) return text.size();
  while (position > 0 && IsUtf8Continuation(text[position])) --position;
  if (position == 0) return position;
  size_t before = position - 1;
  while (before > 0 && IsUtf8Continuation(text[before])) --before;
  std::string_view rest = text.substr(before);
  uint64_t left = TakeCharacter(&rest);
  while (!rest.empty()) {
    const size_t cut = text.size() - rest.size();
    const uint32_t right = TakeCharacter(&rest);
    if (!neighbours_.contains(left << 32 | right)) return cut;
    left = right;
  }
  return text.size();
}

}  // namespace fovea::model
