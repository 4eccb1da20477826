// Which contexts the entries of a batch attend to in their memory layers: crossbatch training
// (Tworkowski et al. 2023, arXiv 2307.03170, section 3.2). A context that is of the entry's own
// document is a positive, any other one a negative.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fovea::train {

// By entry: the numbers of contexts, nearest first.
using SeenContexts = std::vector<std::vector<int64_t>>;

// The paper's form. Every document gives a previous and a current context; the current one of
// document i attends to the previous ones of documents i, i + 1, …, i + d − 1, counted round the
// batch: one positive and d − 1 negatives. InvalidArgument unless 1 <= d <= n_documents.
absl::StatusOr<SeenContexts> SeePreviousContexts(int64_t n_documents, int64_t d);

// LongLLaMA's form. `packing` consecutive entries are consecutive chunks of one document; an entry
// is a context of later ones itself. Entry b attends to entries b − 1, …, b − range, as far as
// there are any. With stepping, the i-th entry of a pack (from 0) sees at most min(i·ceil((range +
// 1)/max(packing − 1, 1)) + 1, range + 1) contexts, its own included. InvalidArgument for numbers
// below 1 (range: below 0), or entries that are no whole number of packs.
struct LongLlamaPacking {
  int64_t packing = 1;
  int64_t range = 1;
  bool stepping = false;
};
absl::StatusOr<SeenContexts> SeeEarlierEntries(int64_t n_entries, const LongLlamaPacking& packing);

// The same with another packing for each of equally large parts of a batch, which see nothing of
// each other.
absl::StatusOr<SeenContexts> SeeEarlierEntriesOfParts(int64_t n_entries,
                                                      std::span<const LongLlamaPacking> parts);

// "0+0,1+1,2+1,3+0": parts of a batch by their contexts of the own document and of others, as
// LongLLaMA's 3B model was trained with; p + n is packs of p + 1 entries that see p + n earlier
// ones. InvalidArgument says what is wrong with it.
absl::StatusOr<std::vector<LongLlamaPacking>> ParsePackings(std::string_view text);

}  // namespace fovea::train
