// Passages that could be taken for the one that answers a question: hard negatives, for the
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

// By passage: those at most `reach` places before or behind it in its file, nearest first, as the
// passages of one document mostly stand there; a memory's question finds the right document far
// more often than the right passage of it. `file_begins` as in TrainingTexts. The same is left out.
std::vector<std::vector<size_t>> FindNeighbours(const std::vector<Passage>& passages,
                                                const std::vector<size_t>& file_begins,
                                                size_t reach);

}  // namespace fovea::train
