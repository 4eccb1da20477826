#include "memory/ingest/windowing.h"

#include <algorithm>
#include <limits>

#include "base/hash.h"

namespace fovea::memory {
namespace {

constexpr int64_t kMinPassageTokens = 128;
constexpr int64_t kMaxPassageTokens = 384;

// How good an end the text before byte `end` is: 0 a paragraph, 1 a line, 2 a sentence, 3 anything.
int EndClass(std::string_view text, uint32_t end) {
  const std::string_view before = text.substr(0, end);
  if (before.ends_with("\n\n") || before.ends_with("\r\n\r\n")) return 0;
  if (before.ends_with('\n')) {
    // The tokenizer may put the second line end of a paragraph into the next token.
    return text.substr(end).starts_with('\n') ? 1 : 0;
  }
  if (before.ends_with('.') || before.ends_with('!') || before.ends_with('?')) return 2;
  return 3;
}

// Whether the text may be cut before token t: the token before it ended a character.
bool IsCharacterBoundary(const TokenSpan& tokens, int64_t t) {
  const uint32_t end = tokens.ends[t - 1];
  if (t < static_cast<int64_t>(tokens.ids.size()) && tokens.ends[t] == end) return false;
  return end >= tokens.text.size() || (static_cast<uint8_t>(tokens.text[end]) & 0xc0) != 0x80;
}

}  // namespace

int64_t CutReferenceWindow(int64_t n_tokens, int64_t window, int64_t last_context_length) {
  const int64_t n_head = n_tokens - last_context_length;
  return n_head > 0 ? std::min(window, n_head) : n_tokens;
}

int64_t CutWindow(const TokenSpan& tokens, int64_t window, bool is_last) {
  const auto n = static_cast<int64_t>(tokens.ids.size());
  if (n <= window && is_last) return n;
  int64_t best = std::min(n, window);
  int best_class = std::numeric_limits<int>::max();
  uint64_t best_hash = 0;
  for (int64_t t = std::max<int64_t>(1, window - window / 4); t <= std::min(window, n - 1); ++t) {
    if (!IsCharacterBoundary(tokens, t)) continue;
    // Lines and paragraphs are one class: what counts is that enough candidates lie in reach for
    // the hash to choose the same one after an edit.
    const int end_class = std::max(1, EndClass(tokens.text, tokens.ends[t - 1]));
    const int64_t first = std::max<int64_t>(0, t - 4);
    const uint64_t hash = Checksum64(AsBytes(tokens.ids.subspan(first, t - first)));
    if (end_class < best_class || (end_class == best_class && hash < best_hash)) {
      best = t;
      best_class = end_class;
      best_hash = hash;
    }
  }
  return best;
}

std::vector<uint32_t> CutPassages(const TokenSpan& tokens) {
  const auto n = static_cast<int64_t>(tokens.ids.size());
  std::vector<uint32_t> begins = {0};
  int64_t begin = 0;
  // What is left may be a little longer than a passage, rather than leave a scrap at the end.
  while (n - begin > kMaxPassageTokens) {
    int64_t cut = begin + kMaxPassageTokens;
    int cut_class = std::numeric_limits<int>::max();
    for (int64_t t = begin + kMinPassageTokens; t <= begin + kMaxPassageTokens; ++t) {
      if (n - t < kMinPassageTokens / 2) break;
      if (!IsCharacterBoundary(tokens, t)) continue;
      const int end_class = EndClass(tokens.text, tokens.ends[t - 1]);
      // The first paragraph end wins; of lesser ends the last one, for passages of full length.
      if (end_class < cut_class || (end_class == cut_class && end_class > 0)) {
        cut = t;
        cut_class = end_class;
        if (end_class == 0) break;
      }
    }
    begins.push_back(static_cast<uint32_t>(cut));
    begin = cut;
  }
  return begins;
}

}  // namespace fovea::memory
