// The inverted files of all KV heads as one, so that one search answers the queries of all heads:
// FAISS takes about as long to begin a search of one as to begin it of all.
//
// Vectors get a dimension more for each head, in which those of the head lie far from all others:
// then the lists that are nearest to a head's query are the head's own, as many as it has.
#pragma once

#include <faiss/Index.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace fovea::index {

// A structure of a head, and the norm that its queries are scaled to (0: they are not).
struct FaissHead {
  const faiss::Index* index = nullptr;
  float radius = 0.0f;
};

// The dimensions that such a structure has for n_heads like this one; 0: they are not made one.
// Lists of vectors, of half floats and of 8 bits are.
int64_t MergedDim(const faiss::Index* head, int64_t n_heads);

struct MergedHeads {
  std::unique_ptr<faiss::Index> index;  // null: they are not made one
  // Of queries of head h the number of dimension first_axis + h; 0 in those of the other heads and
  // after them.
  int64_t first_axis = 0;
  float axis_value = 0.0f;
};
// Keys have the labels that they have in their heads. Codes of 8 bits are rounded once more, to a
// grid that suits all heads. Radii are positive. Exceptions are FAISS's.
MergedHeads MergeHeads(const std::vector<FaissHead>& heads);

}  // namespace fovea::index
