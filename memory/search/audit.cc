#include "memory/search/audit.h"

#include <algorithm>
#include <cmath>

#include "compute/top_k_attention.h"

namespace fovea::memory {
namespace {

// The share of one key from which on a query looks for it.
constexpr float kNeedleShare = 0.5f;

}  // namespace

SearchAudit::SearchAudit(int n_mem_layers) : layers_(static_cast<size_t>(n_mem_layers)) {}

void SearchAudit::Add(int memory_layer, const Row& row) {
  Layer& layer = layers_[static_cast<size_t>(memory_layer)];
  layer.captured +=
      row.keeps_all
          ? 1.0
          : std::min(1.0f, std::exp(compute::LogSumExp(row.kept, row.scale) - row.dense_lse));
  ++layer.n_rows;
  const compute::ScoredId& needle = row.best.front();
  const float share = std::exp(needle.score * row.scale - compute::LogSumExp(row.best, row.scale));
  if (share < kNeedleShare) return;
  ++layer.n_confident;
  const bool is_found =
      std::any_of(row.kept.begin(), row.kept.end(),
                  [&](const compute::ScoredId& hit) { return hit.id == needle.id; });
  if (is_found) ++layer.n_hits;
}

AuditResult SearchAudit::Result() const {
  AuditResult result;
  for (const Layer& layer : layers_) {
    result.captured_mass.push_back(
        layer.n_rows == 0 ? 1.0 : layer.captured / static_cast<double>(layer.n_rows));
    result.needle_recall.push_back(layer.n_confident == 0
                                       ? 1.0
                                       : static_cast<double>(layer.n_hits) /
                                             static_cast<double>(layer.n_confident));
    result.n_confident.push_back(layer.n_confident);
  }
  return result;
}

}  // namespace fovea::memory
