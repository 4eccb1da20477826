// What a search kept, compared with dense attention and with the exactly best keys: how much of the
// softmax's mass it captured, and how often it found the one key that a query looked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/key_scan.h"
#include "memory/search/searcher.h"

namespace fovea::memory {

// Not thread-safe.
class SearchAudit {
 public:
  explicit SearchAudit(int n_mem_layers);

  // One query of one head. `kept` and `best` are sorted, best first; `best` has the kBestKeys
  // exactly best ones, at least one; scores are unscaled.
  struct Row {
    std::span<const compute::ScoredId> kept;
    std::span<const compute::ScoredId> best;
    float scale = 1.0f;
    float dense_lse = 0.0f;  // of all keys
    bool keeps_all = false;  // the search was dense itself
  };
  // Exact best keys that decide whether a query is confident (index/calibration.h).
  static constexpr int kBestKeys = 16;
  // The last positions of a call, whose queries are compared: its cost is a dense pass for each.
  static constexpr int64_t kPositions = 4;
  void Add(int memory_layer, const Row& row);

  AuditResult Result() const;

 private:
  struct Layer {
    double captured = 0.0;
    int64_t n_rows = 0;
    int64_t n_hits = 0;
    int64_t n_confident = 0;
  };
  std::vector<Layer> layers_;  // [n_mem_layers]
};

}  // namespace fovea::memory
