#include "train/crossbatch.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"

namespace fovea::train {

absl::StatusOr<SeenContexts> SeePreviousContexts(int64_t n_documents, int64_t d) {
  if (n_documents < 1 || d < 1 || d > n_documents) {
    return absl::InvalidArgumentError(StrCat("d = ", d, " contexts for each of ", n_documents,
                                             " documents, want 1 to as many as there are documents "
                                             "in a batch"));
  }
  SeenContexts seen(static_cast<size_t>(n_documents));
  for (int64_t i = 0; i < n_documents; ++i) {
    for (int64_t j = 0; j < d; ++j) seen[static_cast<size_t>(i)].push_back((i + j) % n_documents);
  }
  return seen;
}

absl::StatusOr<SeenContexts> SeeEarlierEntries(int64_t n_entries, const LongLlamaPacking& packing) {
  const auto [pack, range, stepping] = packing;
  if (n_entries < 1 || pack < 1 || range < 0 || n_entries % pack != 0) {
    return absl::InvalidArgumentError(
        StrCat(n_entries, " entries in packs of ", pack, " that see ", range,
               " earlier ones, want at least one entry, whole packs and no negative range"));
  }
  const int64_t step =
      (range + 1 + std::max<int64_t>(pack - 1, 1) - 1) / std::max<int64_t>(pack - 1, 1);
  SeenContexts seen(static_cast<size_t>(n_entries));
  for (int64_t b = 0; b < n_entries; ++b) {
    const int64_t in_pack = b % pack;
    const int64_t n_with_own = stepping ? std::min(in_pack * step + 1, range + 1) : range + 1;
    for (int64_t back = 1; back < n_with_own && back <= b; ++back) {
      seen[static_cast<size_t>(b)].push_back(b - back);
    }
  }
  return seen;
}

absl::StatusOr<SeenContexts> SeeEarlierEntriesOfParts(int64_t n_entries,
                                                      std::span<const LongLlamaPacking> parts) {
  const auto n_parts = static_cast<int64_t>(parts.size());
  if (n_parts == 0 || n_entries % n_parts != 0) {
    return absl::InvalidArgumentError(StrCat("a batch of ", n_entries, " entries in ", n_parts,
                                             " parts, want a multiple of the parts"));
  }
  SeenContexts seen;
  for (const LongLlamaPacking& part : parts) {
    const auto begin = static_cast<int64_t>(seen.size());
    ASSIGN_OR_RETURN(const SeenContexts of_part, SeeEarlierEntries(n_entries / n_parts, part));
    for (const std::vector<int64_t>& contexts : of_part) {
      std::vector<int64_t>& moved = seen.emplace_back();
      for (const int64_t context : contexts) moved.push_back(begin + context);
    }
  }
  return seen;
}

absl::StatusOr<std::vector<LongLlamaPacking>> ParsePackings(std::string_view text) {
  std::vector<LongLlamaPacking> packings;
  const std::vector<std::string> parts = absl::StrSplit(std::string(text), ',');
  for (const std::string& part : parts) {
    const std::pair<std::string, std::string> numbers =
        absl::StrSplit(part, absl::MaxSplits('+', 1));
    int64_t own = 0, others = 0;
    if (!absl::SimpleAtoi(numbers.first, &own) || !absl::SimpleAtoi(numbers.second, &others) ||
        own < 0 || others < 0) {
      return absl::InvalidArgumentError(
          StrCat("packing \"", text,
                 "\": want, by part of the batch, contexts of the own document and of others, such "
                 "as 0+0,1+1,2+1,3+0"));
    }
    packings.push_back({.packing = own + 1, .range = own + others});
  }
  return packings;
}

}  // namespace fovea::train
