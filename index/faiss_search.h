// Search of one head's FAISS structure for rows of queries, with a filter in whatever way the
// structure can.
#pragma once

#include <faiss/Index.h>

#include <cstdint>
#include <utility>

#include "index/key_ids.h"
#include "index/layer_index.h"

namespace fovea::index {

// LayerIndex::ProbeRange.
std::pair<int, int> FaissProbeRange(const faiss::Index* index);
// What is tried for LayerSearchArgs::n_probe.
int FaissEffort(const faiss::Index* index, int n_probe);

// Rows of queries, mapped already.
struct FaissRows {
  const float* queries;  // [n, index_dim]
  int64_t n;
  int64_t n_candidates;
  int effort;
  const IdFilter* filter;  // null: everything
  int64_t n_wanted;        // candidates that there can be
};
// labels = [n, n_candidates] positions, −1 at the end of a row that found fewer. Exceptions are
// FAISS's.
void SearchFaiss(const faiss::Index& head, const KeyIds& ids, const FaissRows& rows,
                 int64_t* labels);

}  // namespace fovea::index
