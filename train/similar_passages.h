// Passages that look as if they answered the questions of another one: hard negatives, for the
// memory's attention and for prompts with several passages.
#pragma once

#include <cstddef>
#include <vector>

#include "train/training_texts.h"

namespace fovea::train {

// By passage: at most `n` others, those that the words of its questions find best by BM25
// (Robertson and Zaragoza 2009, k1 1.2, b 0.75), best first. Left out is what may answer them as
// well: other versions of the same text, and whatever holds one of their answers.
std::vector<std::vector<size_t>> FindSimilarPassages(const std::vector<Passage>& passages,
                                                     size_t n);

}  // namespace fovea::train
