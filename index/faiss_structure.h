// The FAISS structures that can be the index of a head: which specifications make them, how each is
// searched, how they are trained.
#pragma once

#include <faiss/Index.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace fovea::index {

// How a structure is searched.
enum class FaissKind {
  kUnknown,    // not one of fovea's
  kScan,       // of all keys, with a filter
  kBlindScan,  // of all keys, without
  kIvf,
  kHnsw,
};

FaissKind KindOf(const faiss::Index* index);

// The structure behind transformations such as OPQ.
faiss::Index* Core(faiss::Index* index);
inline const faiss::Index* Core(const faiss::Index* index) {
  return Core(const_cast<faiss::Index*>(index));
}

// Nothing trained, no keys.
struct EmptyFaissIndex {
  std::unique_ptr<faiss::Index> index;
  int64_t index_dim = 0;      // at least head_dim
  bool is_augmented = false;  // works in L2 (index/key_space.h)
};
// InvalidArgument for specifications that FAISS does not know, or that fovea does not search.
absl::StatusOr<EmptyFaissIndex> MakeEmptyFaissIndex(const std::string& spec, int64_t head_dim);

// What FAISS's GPU part takes of a GPU's memory for such a structure, as full as this one; 0: it
// has no such structure, or one that is slower than our own exact search (Flat).
// `merged_dim`: as a part of one of so many dimensions (index/faiss_merge.h); 0: by itself.
size_t GpuStructureBytes(const faiss::Index* index, int64_t merged_dim = 0);
// Whether its tables have room in a GPU's shared memory in half precision alone.
bool GpuWantsHalfTables(const faiss::Index* index);

// Settings to train `core` with, and of how many keys of n_keys.
void SetTraining(faiss::Index* core);
int64_t TrainingSize(const faiss::Index* core, int64_t n_keys);

}  // namespace fovea::index
