// Invented facts of many kinds, with a question and its answer: what a memory is trained to find.
#pragma once

#include <string>
#include <vector>

#include "texts/fact_words.h"
#include "texts/random.h"

namespace fovea::texts {

struct Fact {
  std::string sentence;
  std::string question;
  std::string answer;
  // What it is made of, for facts that look like it.
  size_t kind = 0;
  std::vector<std::string> parts;
};

// Thread-safe.
class FactMaker {
 public:
  // Words of real texts make facts that generalise; a few of its own stand in where `words` has too
  // few.
  explicit FactMaker(const FactWords& words);

  Fact Make(Random& random) const;
  // One of the same kind in which one of the parts that its question names is another.
  Fact MakeLike(const Fact& fact, Random& random) const;
  static size_t n_kinds();

 private:
  std::string MakePart(char kind, Random& random) const;
  std::vector<std::string> names_, things_, places_, qualities_;
};

}  // namespace fovea::texts
