// Words for facts, found in texts by where they stand.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "texts/fact_words.h"

namespace fovea::texts {

// English, and any language that writes names in capitals and has "the" and "a" for articles. Not
// thread-safe.
class WordHarvest {
 public:
  void Add(std::string_view text);
  // The most frequent words of each kind, sorted; common to several are one kind's only.
  void Finish(FactWords* words) const;

 private:
  struct Counts {
    int64_t name = 0;     // in capitals within a sentence
    int64_t lower = 0;    // in lower case
    int64_t thing = 0;    // after an article, before what ends a noun phrase
    int64_t place = 0;    // the same after "in", "at", "into", "from"
    int64_t quality = 0;  // between an article and a further word
  };
  std::unordered_map<std::string, Counts> counts_;  // by the word in lower case
};

}  // namespace fovea::texts
