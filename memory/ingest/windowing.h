// Where windows and passages begin and end. Cuts depend on nearby content only, not on the distance
// from the start of the document: after an edit the windows fall into step again within a few
// windows, and those that did not change need not be encoded again (the local-minimum form of
// content-defined chunking, Bjørner et al. 2010).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace fovea::memory {

// Tokens of a text: token t covers bytes [ends[t-1], ends[t]) of `text` (from text_begin for t =
// 0).
struct TokenSpan {
  std::span<const int32_t> ids;
  std::span<const uint32_t> ends;  // as long as ids
  uint32_t text_begin = 0;
  std::string_view text;
};

// Length in tokens of the next window: all of `tokens` when they are the last and fit, else between
// 3/4 of `window` and `window`, at a place that its neighbourhood chooses (preferring ends of lines
// and sentences) and that splits no UTF-8 character. `tokens` holds at least window + 1 tokens, or
// all that is left.
int64_t CutWindow(const TokenSpan& tokens, int64_t window, bool is_last);

// Length in tokens of the next window as LongLLaMA's code splits a prompt: windows of `window`
// tokens, then what is left before the last `last_context_length` tokens, then these. `tokens`
// holds at least window + last_context_length tokens, or all that is left.
int64_t CutReferenceWindow(int64_t n_tokens, int64_t window, int64_t last_context_length);

// First tokens of the passages of a window, [0] = 0: runs of 128 to 384 tokens that end with a
// paragraph where one ends there, else with a line or sentence.
std::vector<uint32_t> CutPassages(const TokenSpan& tokens);

}  // namespace fovea::memory
