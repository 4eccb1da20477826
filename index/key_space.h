// Where an index looks for keys: stored keys and queries mapped so that the search library's
// metric finds the largest inner products.
//
// The mean key is taken off, which changes no query's ranking. Structures that work in L2 get one
// dimension more, √(R² − |k|²) for a key and 0 for a query: then all keys have the norm R and the
// nearest is the one with the largest inner product (Bachrach et al. 2014). Queries are scaled to
// the norm R as well, so that centroids, which lie inside of the sphere, are compared with them
// fairly. Further dimensions are 0, to make a number that the structure can divide.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"
#include "compute/key_scan.h"

namespace fovea::index {

// What there is to know of one head's keys before they are mapped.
struct KeyStatistics {
  std::vector<float> mean;  // [head_dim]
  float radius = 0.0f;      // largest norm of a key less the mean
  // Positions (in the order of the runs) of the keys that are smallest or largest in a dimension:
  // quantisers that learn the range of values from a sample must not miss them, since the outliers
  // are what queries look for.
  std::vector<int64_t> extremes;
};
// InvalidArgument when a key holds NaN or infinity.
absl::StatusOr<KeyStatistics> Analyse(const std::vector<compute::KeyRun>& runs, int64_t head_dim);

// Immutable and thread-safe.
class KeySpace {
 public:
  KeySpace() = default;
  KeySpace(std::vector<float> mean, float radius, int64_t index_dim, bool is_augmented)
      : mean_(std::move(mean)),
        radius_(radius),
        index_dim_(index_dim),
        is_augmented_(is_augmented) {}
  const std::vector<float>& mean() const { return mean_; }
  float radius() const { return radius_; }
  int64_t index_dim() const { return index_dim_; }

  void MapKey(EntryPointer key, float* out) const;      // [head_dim] → [index_dim]
  void MapQuery(const float* query, float* out) const;  // [head_dim] → [index_dim]

 private:
  std::vector<float> mean_;  // [head_dim]
  float radius_ = 0.0f;
  int64_t index_dim_ = 0;
  bool is_augmented_ = false;
};

}  // namespace fovea::index
