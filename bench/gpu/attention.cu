// Dense attention of one question to many keys on a GPU, against reading keys and values once at
// the speed of a copy on the same GPU, in the same run.
//
//   build/cuda-release/bin/gpu_attention [--keys 65536,262144] [--repeats 50]
//
// 32 query heads and as many KV heads of 128 dimensions in bfloat16, one query position. Each time
// is the median over the repeats of the time between two events that one call lies between; calls
// are queued one after another, and take turns between two sets of keys and values. JSON to stdout,
// a table to stderr. The first output of each size is compared with float64 on the host (--check 0:
// not): the largest difference, relative to the largest output.
#include <cmath>
#include <cstring>

#include "bench/gpu/gpu_bench.cuh"
#include "compute/attention.h"

namespace fovea::compute {
namespace {

constexpr int64_t kHeads = 32, kDim = 128;

struct Entries {
  Buffer keys, values;
  uint64_t key_seed, value_seed;
};

double LargestError(const Entries& entries, int64_t n_keys, const std::vector<float>& queries,
                    const std::vector<float>& output, int64_t head) {
  const auto stored = [&](uint64_t seed, int64_t key, int64_t i) {
    return static_cast<double>(static_cast<float>(
        BFloat16(Normal(seed + static_cast<uint64_t>((head * n_keys + key) * kDim + i)))));
  };
  std::vector<double> scores(static_cast<size_t>(n_keys));
  double high = -INFINITY;
  for (int64_t k = 0; k < n_keys; ++k) {
    double score = 0.0;
    for (int64_t i = 0; i < kDim; ++i) {
      score += queries[static_cast<size_t>(head * kDim + i)] * stored(entries.key_seed, k, i);
    }
    scores[static_cast<size_t>(k)] = score / std::sqrt(static_cast<double>(kDim));
    high = std::max(high, scores[static_cast<size_t>(k)]);
  }
  double sum = 0.0;
  std::vector<double> want(kDim);
  for (int64_t k = 0; k < n_keys; ++k) {
    const double weight = std::exp(scores[static_cast<size_t>(k)] - high);
    sum += weight;
    for (int64_t i = 0; i < kDim; ++i) {
      want[static_cast<size_t>(i)] += weight * stored(entries.value_seed, k, i);
    }
  }
  double worst = 0.0, largest = 0.0;
  for (int64_t i = 0; i < kDim; ++i) {
    const double expected = want[static_cast<size_t>(i)] / sum;
    worst = std::max(worst, std::abs(output[static_cast<size_t>(head * kDim + i)] - expected));
    largest = std::max(largest, std::abs(expected));
  }
  return worst / largest;
}

void Run(const std::vector<int64_t>& sizes, int repeats, bool check) {
  cuda::CudaDevice& gpu = OpenGpu();
  const double copy = CopyBytesPerSecond(gpu, 9);
  std::fprintf(stderr, "%s, copy %.2f TB/s\n%12s %10s %10s %8s %s\n", GpuName().c_str(),
               copy / 1e12, "keys", "us", "read us", "ratio", "error");
  std::printf(
      "{\"bench\": \"gpu_attention\", \"gpu\": \"%s\", \"copy_bytes_per_second\": %.4g, "
      "\"heads\": %d, \"head_dim\": %d, \"sizes\": [",
      GpuName().c_str(), copy, static_cast<int>(kHeads), static_cast<int>(kDim));
  for (size_t s = 0; s < sizes.size(); ++s) {
    const int64_t n = sizes[s];
    const int64_t n_entries = kHeads * n * kDim;
    std::vector<Entries> sets;
    for (uint64_t m = 0; m < 2; ++m) {
      Entries& set = sets.emplace_back();
      set.key_seed = (2 * m + 1) << 40;
      set.value_seed = (2 * m + 2) << 40;
      set.keys = RandomEntries(gpu, set.key_seed, n_entries);
      set.values = RandomEntries(gpu, set.value_seed, n_entries);
    }
    std::vector<float> queries(kHeads * kDim);
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = Normal(77 + i);
    const Buffer q = *gpu.Allocate(queries.size() * sizeof(float));
    CHECK_OK(gpu.CopyFromHost(queries.data(), queries.size() * sizeof(float), q.data<void>()));
    const Buffer output = *gpu.Allocate(queries.size() * sizeof(float));
    const Buffer lse = *gpu.Allocate(kHeads * sizeof(float));
    const auto attend = [&](int64_t i) {
      const Entries& set = sets[static_cast<size_t>(i % 2)];
      const auto view = [&](const Buffer& entries) {
        return ConstView(DType::kBF16, entries.data<void>(), {n, kHeads, kDim})
            .WithStrides({kDim, n * kDim, 1});
      };
      CHECK_OK(Attention(gpu, {.queries = {q.data<float>(), {1, kHeads, kDim}},
                               .keys = view(set.keys),
                               .values = view(set.values),
                               .scale = 1.0f / std::sqrt(static_cast<float>(kDim)),
                               .causal = false,
                               .output = {output.data<float>(), {1, kHeads, kDim}},
                               .lse = {lse.data<float>(), {1, kHeads}}}));
    };
    attend(0);
    std::vector<float> first(queries.size());
    CHECK_OK(gpu.CopyToHost(output.data<void>(), first.size() * sizeof(float), first.data()));
    const double error = check ? LargestError(sets[0], n, queries, first, 3) : -1.0;
    const double us = MedianMicroseconds(gpu, repeats, attend);
    const double read_us = static_cast<double>(n_entries) * 4 / copy * 1e6;
    std::fprintf(stderr, "%12lld %10.1f %10.1f %8.3f %.1e\n", static_cast<long long>(n), us,
                 read_us, us / read_us, error);
    std::printf(
        "%s{\"keys\": %lld, \"us\": %.2f, \"read_us\": %.2f, \"ratio\": %.4f, "
        "\"relative_error\": %.3g}",
        s > 0 ? ", " : "", static_cast<long long>(n), us, read_us, us / read_us, error);
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) {
  const fovea::compute::BenchOptions options(argc, argv, "--keys", {65536, 262144});
  fovea::compute::Run(options.sizes, options.repeats, options.check);
}
