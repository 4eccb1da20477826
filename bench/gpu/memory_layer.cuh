// A memory layer as benches of its search ask it: 9 query and 3 KV heads of 64 dimensions in
// bfloat16, top 16; queries of one or many positions, and where their answers go.
#pragma once

#include "bench/gpu/gpu_bench.cuh"
#include "compute/coded_memory_attention.h"
#include "compute/memory_attention.h"

namespace fovea::compute {

constexpr int64_t kHeads = 9, kKvHeads = 3, kDim = 64;
constexpr int kTopK = 16;
constexpr float kScale = 0.125f;

// [n_queries, kHeads, kTopK]
struct Found {
  std::vector<int64_t> positions;
  std::vector<float> scores;
  bool Has(size_t row, int64_t position) const {
    const auto begin = positions.begin() + static_cast<int64_t>(row * kTopK);
    return std::find(begin, begin + kTopK, position) != begin + kTopK;
  }
};

class LayerQueries {
 public:
  LayerQueries(cuda::CudaDevice& gpu, const std::vector<float>& host)
      : gpu_(gpu), n_queries_(static_cast<int64_t>(host.size()) / (kHeads * kDim)) {
    const auto n_rows = static_cast<size_t>(n_queries_ * kHeads);
    queries_ = *gpu.Allocate(host.size() * sizeof(float));
    CHECK_OK(gpu.CopyFromHost(host.data(), host.size() * sizeof(float), queries_.data<void>()));
    output_ = *gpu.Allocate(host.size() * sizeof(float));
    lse_ = *gpu.Allocate(n_rows * sizeof(float));
    positions_ = *gpu.Allocate(n_rows * kTopK * sizeof(int64_t));
    scores_ = *gpu.Allocate(n_rows * kTopK * sizeof(float));
  }
  int64_t n_queries() const { return n_queries_; }
  const float* data() const { return queries_.data<float>(); }

  void Exact(const MemoryPart& part) const {
    CHECK_OK(MemoryAttention(gpu_, {.queries = View(),
                                    .parts = {&part, 1},
                                    .top_k = kTopK,
                                    .scale = kScale,
                                    .output = {output_.data<float>(), {n_queries_, kHeads, kDim}},
                                    .lse = {lse_.data<float>(), {n_queries_, kHeads}},
                                    .positions = positions_.data<int64_t>(),
                                    .scores = scores_.data<float>()}));
  }
  void Approximate(const CodedMemoryPart& part, int n_candidates) const {
    CHECK_OK(
        CodedMemoryAttention(gpu_, {.queries = View(),
                                    .parts = {&part, 1},
                                    .n_candidates = n_candidates,
                                    .top_k = kTopK,
                                    .scale = kScale,
                                    .output = {output_.data<float>(), {n_queries_, kHeads, kDim}},
                                    .lse = {lse_.data<float>(), {n_queries_, kHeads}},
                                    .positions = positions_.data<int64_t>(),
                                    .scores = scores_.data<float>()}));
  }
  // What the last call kept.
  Found Read() const {
    Found found{std::vector<int64_t>(static_cast<size_t>(n_queries_ * kHeads * kTopK)), {}};
    found.scores.resize(found.positions.size());
    CHECK_OK(
        gpu_.CopyToHost(positions_.data<void>(), positions_.size_bytes(), found.positions.data()));
    CHECK_OK(gpu_.CopyToHost(scores_.data<void>(), scores_.size_bytes(), found.scores.data()));
    return found;
  }

 private:
  ConstView View() const { return {queries_.data<float>(), {n_queries_, kHeads, kDim}}; }

  cuda::CudaDevice& gpu_;
  const int64_t n_queries_;
  Buffer queries_, output_, lse_, positions_, scores_;
};

// Whether a query head is confident: half of the softmax over the best 16 is one key's.
inline bool IsConfident(const Found& exact, size_t row) {
  double sum = 0.0;
  for (size_t j = 0; j < kTopK; ++j) {
    sum += std::exp((exact.scores[row * kTopK + j] - exact.scores[row * kTopK]) * kScale);
  }
  return sum <= 2.0;
}
// How many of the exact best keys of a query head were found.
inline int CountFound(const Found& exact, const Found& found, size_t row) {
  int n = 0;
  for (size_t j = 0; j < kTopK; ++j) n += found.Has(row, exact.positions[row * kTopK + j]) ? 1 : 0;
  return n;
}

// Row r of many looks for this key.
inline int64_t SoughtKey(int64_t row, int64_t n) {
  return static_cast<int64_t>(static_cast<uint64_t>(row) * 0x9e3779b97f4a7c15u >> 1) % n;
}
// key(kv_head, position, d): queries of n_queries positions that are made of the keys that they
// look for and more or less noise.
template <typename Key>
std::vector<float> SeekingQueries(int64_t n_queries, int64_t n, Key key) {
  std::vector<float> queries;
  for (int64_t row = 0; row < n_queries * kHeads; ++row) {
    const int64_t kv_head = row % kHeads / (kHeads / kKvHeads);
    for (int64_t d = 0; d < kDim; ++d) {
      const float noise = Normal(999'999'937u * static_cast<uint64_t>(row * kDim + d));
      queries.push_back(1.5f * key(kv_head, SoughtKey(row, n), d) +
                        (0.5f + 0.25f * static_cast<float>(row % 4)) * noise);
    }
  }
  return queries;
}

}  // namespace fovea::compute
