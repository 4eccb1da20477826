// From attention mass on stored tokens to passages of documents: what an answer was read from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/generation.h"
#include "memory/search/searcher.h"

namespace fovea::memory {

// A passage of a document, found by attention or by words.
struct Passage {
  Slot slot_begin = 0;
  uint32_t n_tokens = 0;
  std::string document;  // id
  // The document's first source in a collection that the query's scope names, else its first.
  std::string title;
  std::string source;
  std::string collection;
  std::vector<std::string> other_sources;  // that refer to the document, each once
  uint64_t start = 0;                      // bytes in the document's text
  uint64_t end = 0;
  double mass = 0.0;    // share of attention, in [0, 1]; over all passages at most 1
  double score = 0.0;   // what it was ranked by
  bool reread = false;  // its text joined the prompt
  std::string text;
  // The run of tokens that was attended to most, where attention has found the passage; else both
  // are `start`. Bytes of the document's text, as the next two.
  uint64_t peak_start = 0;
  uint64_t peak_end = 0;
  // The part to be shown where there is no room for all of `text` (answer/excerpt.h). Empty: none
  // was chosen.
  uint64_t excerpt_start = 0;
  uint64_t excerpt_end = 0;

  // That part, else all.
  std::string_view excerpt() const {
    if (excerpt_end <= excerpt_start) return text;
    return std::string_view(text).substr(excerpt_start - start, excerpt_end - excerpt_start);
  }
};

// Some of the document's text around a passage, whole characters on either side: it tells whether
// the passage begins or ends within what people see as one character (documents/graphemes.h).
struct Surroundings {
  std::string before;
  std::string after;
};
// NotFound where the passage's window, or the one beside it, is not there any more.
absl::StatusOr<Surroundings> ReadSurroundings(const Generation& generation, const Passage& passage);

// Passages by attention mass, best first. `mass` and n_rows as MemorySearcher gives them.
absl::StatusOr<std::vector<Passage>> PassagesByMass(const MemorySearcher& searcher,
                                                    std::span<const SlotMass> mass, int n_passages);

// Passages by how the prompt's last token attends, best first: the score is the sum, over `layers`
// (indexes of memory layers), of the logarithm of the mass that a passage has in the layer. `mass`
// and n_rows are of that token alone.
absl::StatusOr<std::vector<Passage>> PassagesByLogMass(const MemorySearcher& searcher,
                                                       std::span<const SlotMass> mass,
                                                       std::span<const int> layers, int n_passages);

// Passages by BM25, best first. Empty where the memory has no text index.
absl::StatusOr<std::vector<Passage>> PassagesByWords(const MemorySearcher& searcher,
                                                     const std::string& question, int n_passages);

// Two rankings as one, best first: scores are standardized in each ranking (z-scores over all
// passages that either has; one that a ranking lacks counts as that ranking's last) and added. What
// a ranking hardly tells apart stays so: logarithms of masses are divided by at least 1 (a factor
// of e), scores of words by at least a twentieth of the best. Of two passages the standardized
// scores would else always be +1 and -1, however close they are.
std::vector<Passage> FuseScores(std::vector<Passage> by_mass, std::vector<Passage> by_words,
                                int n_passages);

}  // namespace fovea::memory
