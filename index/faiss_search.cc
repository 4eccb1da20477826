#include "index/faiss_search.h"

#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/impl/IDSelector.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "index/faiss_structure.h"

namespace fovea::index {
namespace {

// HNSW: beyond this a scan is faster.
constexpr int kMaxEfSearch = 4096;
constexpr int kDefaultEfSearch = 256;

// Where FAISS cannot filter, so many results are fetched at most before the filter.
constexpr int64_t kMaxOverFetch = 1 << 16;

// Tells FAISS by position which keys the filter allows.
class PositionSelector final : public faiss::IDSelector {
 public:
  PositionSelector(const KeyIds& ids, const IdFilter& filter) : ids_(ids), filter_(filter) {}
  bool is_member(int64_t position) const override { return filter_.Allows(ids_.At(position)); }

 private:
  const KeyIds& ids_;
  const IdFilter& filter_;
};

// One call of FAISS.
void SearchOnce(FaissKind kind, const faiss::Index* core, const float* queries, int64_t n,
                int64_t n_results, int effort, faiss::IDSelector* selector, int64_t* labels) {
  std::vector<float> distances(static_cast<size_t>(n * n_results));
  switch (kind) {
    case FaissKind::kIvf: {
      faiss::SearchParametersIVF parameters;
      parameters.sel = selector;
      parameters.nprobe = static_cast<size_t>(effort);
      core->search(n, queries, n_results, distances.data(), labels, &parameters);
      break;
    }
    case FaissKind::kHnsw: {
      faiss::SearchParametersHNSW parameters;
      parameters.sel = selector;
      parameters.efSearch = effort;
      if (effort <= n_results) {
        core->search(n, queries, n_results, distances.data(), labels, &parameters);
        break;
      }
      // FAISS 1.7 sizes its queue by the number of results alone, whatever efSearch says.
      distances.resize(static_cast<size_t>(n) * static_cast<size_t>(effort));
      std::vector<int64_t> all(distances.size());
      core->search(n, queries, effort, distances.data(), all.data(), &parameters);
      for (int64_t row = 0; row < n; ++row) {
        std::copy_n(all.data() + row * effort, n_results, labels + row * n_results);
      }
      break;
    }
    case FaissKind::kScan: {
      faiss::SearchParameters parameters;
      parameters.sel = selector;
      core->search(n, queries, n_results, distances.data(), labels,
                   selector != nullptr ? &parameters : nullptr);
      break;
    }
    default:
      core->search(n, queries, n_results, distances.data(), labels);
      break;
  }
}

}  // namespace

std::pair<int, int> FaissProbeRange(const faiss::Index* index) {
  const FaissKind kind = KindOf(index);
  if (kind == FaissKind::kHnsw) return {1, kMaxEfSearch};
  if (kind == FaissKind::kIvf) {
    const auto* ivf = static_cast<const faiss::IndexIVF*>(Core(index));
    return {1, static_cast<int>(ivf->nlist)};
  }
  return {0, 0};
}

int FaissEffort(const faiss::Index* index, int n_probe) {
  const auto [low, high] = FaissProbeRange(index);
  if (high == 0) return 0;
  if (n_probe <= 0) {
    // Nobody measured: what the index study found enough on real keys.
    return KindOf(index) == FaissKind::kHnsw ? kDefaultEfSearch : std::max(1, (high + 15) / 16);
  }
  return std::clamp(n_probe, low, high);
}

void SearchFaiss(const faiss::Index& head, const KeyIds& ids, const FaissRows& rows,
                 int64_t* labels) {
  const faiss::Index* index = &head;
  const FaissKind kind = KindOf(index);
  const int max_probe = FaissProbeRange(index).second;
  const float* queries = rows.queries;
  std::vector<std::unique_ptr<const float[]>> transformed;
  while (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(index)) {
    const float* next = transform->apply_chain(rows.n, queries);
    if (next != queries) transformed.emplace_back(next);
    queries = next;
    index = transform->index;
  }
  const int64_t k = rows.n_candidates;
  if (rows.filter == nullptr) {
    SearchOnce(kind, index, queries, rows.n, k, rows.effort, nullptr, labels);
    return;
  }
  PositionSelector selector(ids, *rows.filter);
  if (kind == FaissKind::kScan) {
    SearchOnce(kind, index, queries, rows.n, k, rows.effort, &selector, labels);
    return;
  }
  // What a filter allows may lie where a query would not look: rows that found too little look
  // further. Structures that cannot filter fetch more and drop what is not allowed.
  int64_t max_effort =
      kind == FaissKind::kBlindScan ? std::min(ids.size(), kMaxOverFetch) : max_probe;
  // A graph leads to what is near the query, allowed or not. The vectors behind it are scanned
  // instead, which costs little where few are allowed.
  const faiss::Index* storage = nullptr;
  if (kind == FaissKind::kHnsw) {
    storage = static_cast<const faiss::IndexHNSW*>(index)->storage;
    if (KindOf(storage) == FaissKind::kScan) {
      max_effort = rows.effort;
    } else {
      storage = nullptr;
    }
  }
  int64_t effort = kind == FaissKind::kBlindScan ? std::min(4 * k, max_effort) : rows.effort;
  std::vector<int64_t> pending(static_cast<size_t>(rows.n));
  for (size_t i = 0; i < pending.size(); ++i) pending[i] = static_cast<int64_t>(i);
  std::vector<float> pending_queries;
  std::vector<int64_t> found;
  const size_t dim = static_cast<size_t>(index->d);
  while (true) {
    const int64_t n = static_cast<int64_t>(pending.size());
    const int64_t n_results = kind == FaissKind::kBlindScan ? effort : k;
    pending_queries.clear();
    for (const int64_t row : pending) {
      const float* query = queries + static_cast<size_t>(row) * dim;
      pending_queries.insert(pending_queries.end(), query, query + dim);
    }
    found.assign(static_cast<size_t>(n * n_results), -1);
    SearchOnce(kind, index, pending_queries.data(), n, n_results, static_cast<int>(effort),
               kind == FaissKind::kBlindScan ? nullptr : &selector, found.data());
    std::vector<int64_t> unfilled;
    for (int64_t i = 0; i < n; ++i) {
      int64_t* out = labels + pending[static_cast<size_t>(i)] * k;
      int64_t n_found = 0;
      for (int64_t j = 0; j < n_results && n_found < k; ++j) {
        const int64_t label = found[static_cast<size_t>(i * n_results + j)];
        if (label >= 0 && selector.is_member(label)) out[n_found++] = label;
      }
      std::fill(out + n_found, out + k, -1);
      if (n_found < rows.n_wanted) unfilled.push_back(pending[static_cast<size_t>(i)]);
    }
    if (unfilled.empty() || effort >= max_effort) {
      pending = std::move(unfilled);
      break;
    }
    pending = std::move(unfilled);
    effort = std::min(4 * effort, max_effort);
  }
  if (pending.empty() || storage == nullptr) return;
  faiss::SearchParameters parameters;
  parameters.sel = &selector;
  std::vector<float> distances(static_cast<size_t>(k));
  for (const int64_t row : pending) {
    storage->search(1, queries + static_cast<size_t>(row) * dim, k, distances.data(),
                    labels + row * k, &parameters);
  }
}

}  // namespace fovea::index
