// What a sentence of an answer was read from: of the passages in the prompt the one that has half
// of its words or more, else the passage that the memory layers attended to most while its tokens
// were made, where that has one of its words: memory layers always attend to something, be it to
// say what stands nowhere.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "memory/search/attribution.h"
#include "memory/search/searcher.h"

namespace fovea::answer {

// Passages with a smaller share of the attention are no sources.
inline constexpr double kLeastSourceMass = 0.005;

// Not thread-safe.
class SentenceSources {
 public:
  // `reread`: passages whose text the prompt has. `searcher`: null where the memory is not read
  // while the answer is made. Both outlive this. At most `n_sources` passages get a number.
  SentenceSources(std::span<const memory::Passage> reread, memory::MemorySearcher* searcher,
                  int n_sources)
      : reread_(reread), searcher_(searcher), n_sources_(n_sources) {}

  // Between two sentences; before the first one as well, when the prompt has been read.
  void Begin();
  // The number of its source, from 1, in the order in which sources are first named; 0: it has
  // none. Between the sentence's last token and the next Begin, which this calls.
  int SourceOf(std::string_view sentence);

  // The passages that have a number, by it.
  const std::vector<memory::Passage>& named() const { return named_; }
  // The first error; a sentence that had one has no source.
  const absl::Status& status() const { return status_; }

 private:
  const memory::Passage* FindByWords(std::string_view sentence) const;
  // At most one.
  absl::StatusOr<std::vector<memory::Passage>> FindByMass(std::string_view sentence) const;

  const std::span<const memory::Passage> reread_;
  memory::MemorySearcher* const searcher_;
  const size_t n_sources_;
  // Of the searcher when the sentence began.
  absl::flat_hash_map<memory::Slot, std::vector<float>> mass_before_;
  int64_t n_rows_before_ = 0;
  std::vector<memory::Passage> named_;
  absl::Status status_;
};

}  // namespace fovea::answer
