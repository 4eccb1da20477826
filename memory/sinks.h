// Which tokens of a window no query is to select. Attention that is meant for nothing goes to
// tokens that say nothing ("attention sinks", Xiao et al. 2023, arXiv 2309.17453, section 3.1): to
// the first one that a model sees, and to runs in which a few tokens repeat (form lines, leaders,
// padding), which come to look like it. The local context has its own. Those of every stored
// document beside it would take the places of keys that answer, and be named as sources.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "storage/records.h"

namespace fovea::memory {

// Runs of at least 8 tokens, and at least three times the pattern, in which a pattern of one to
// four tokens repeats, and the two tokens after them; ascending, with other tokens between them.
// `context` holds the tokens that were encoded before `ids`: a run may begin there. The result is a
// function of the two alone.
std::vector<storage::TokenRange> FindRepeats(std::span<const int32_t> context,
                                             std::span<const int32_t> ids);

// Calls visit(begin, end) for the tokens of [0, n_tokens) that lie between `ranges`, in order.
void ForEachOther(std::span<const storage::TokenRange> ranges, uint32_t n_tokens,
                  absl::FunctionRef<void(uint32_t begin, uint32_t end)> visit);

}  // namespace fovea::memory
