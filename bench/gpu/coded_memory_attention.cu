// Approximate search and attention in one memory layer on a GPU, by codes of the keys, against
// reading the codes once at the speed of a copy on the same GPU, and against exact search, in the
// same run.
//
//   build/cuda-release/bin/gpu_coded_memory_attention [--tokens 1000000,16000000] [--repeats 50]
//       [--bits 2,4,8] [--candidates 128] [--pinned 0|1]
//
// Keys and queries are random, as in gpu_memory_attention: 9 query heads, 3 KV heads of 64
// dimensions in bfloat16, one query position, top 16. --pinned 1 leaves keys and values in pinned
// host memory, from which candidates are read. Times are medians, of calls that are queued one
// after another; calls take turns between memories that together are larger than the cache.
//
// Recall is that of 576 other query heads: *facts*, queries that are made of a stored key and as
// much noise as lets an exact search just find it, the share of those that it finds that the codes
// find, too; of *needles*, heads whose softmax over the exact best 16 gives one key at least half,
// the share whose best key is found; and of all heads the share of the exact best 16 that is.
// A JSON object goes to stdout, a table to stderr.
#include "bench/gpu/memory_layer.cuh"

namespace fovea::compute {
namespace {

constexpr int64_t kRecallQueries = 64;
constexpr int64_t kCacheBytes = int64_t{200} << 20;

struct Memory {
  uint64_t seed;
  Buffer keys, values, codes, factors, mean;
};

Memory MakeMemory(cuda::CudaDevice& gpu, uint64_t seed, int64_t n, bool is_pinned) {
  Memory memory{.seed = seed};
  for (Buffer* half : {&memory.keys, &memory.values}) {
    *half = RandomEntries(gpu, seed, kKvHeads * n * kDim);
    seed += uint64_t{1} << 38;
    if (!is_pinned) continue;
    auto pinned = gpu.AllocatePinned(half->size_bytes());
    CHECK_OK(pinned.status());
    CHECK_OK(gpu.CopyToHost(half->data<void>(), half->size_bytes(), pinned->data<void>()));
    *half = *std::move(pinned);
  }
  return memory;
}

struct Recall {
  int n_facts = 0, n_facts_found = 0, n_needles = 0, n_needles_found = 0;
  double of_top_k = 0.0;
};

struct Layer {
  int64_t n_tokens;
  LayerQueries queries;

  MemoryPart Part(const Memory& memory) const {
    return {.keys = {DType::kBF16, memory.keys.data<void>(), {kKvHeads, n_tokens, kDim}},
            .values = {DType::kBF16, memory.values.data<void>(), {kKvHeads, n_tokens, kDim}}};
  }
  void Exact(const Memory& memory) const { queries.Exact(Part(memory)); }
  void Coded(const Memory& memory, int bits, const Buffer& rotation, int n_candidates) const {
    queries.Approximate({.entries = Part(memory),
                         .codes = {.bits = bits,
                                   .codes = memory.codes.data<std::byte>(),
                                   .factors = memory.factors.data<BFloat16>(),
                                   .mean = memory.mean.data<float>(),
                                   .rotation = rotation.data<float>()}},
                        n_candidates);
  }
};

std::vector<float> FactQueries(const Memory& memory, int64_t n) {
  return SeekingQueries(kRecallQueries, n, [&](int64_t kv_head, int64_t key, int64_t d) {
    return Normal(memory.seed + static_cast<uint64_t>((kv_head * n + key) * kDim + d));
  });
}

Recall Compare(const Found& exact, const Found& coded, int64_t n) {
  Recall recall;
  for (size_t row = 0; row < kRecallQueries * kHeads; ++row) {
    recall.of_top_k += CountFound(exact, coded, row);
    if (IsConfident(exact, row)) {
      ++recall.n_needles;
      recall.n_needles_found += coded.Has(row, exact.positions[row * kTopK]) ? 1 : 0;
    }
    const int64_t fact = SoughtKey(static_cast<int64_t>(row), n);
    if (exact.positions[row * kTopK] == fact) {
      ++recall.n_facts;
      recall.n_facts_found += coded.positions[row * kTopK] == fact ? 1 : 0;
    }
  }
  recall.of_top_k /= static_cast<double>(exact.positions.size());
  return recall;
}

struct Options {
  std::vector<int64_t> bits = {2, 4, 8};
  int n_candidates = 128;
  bool is_pinned = false;
};

void Run(const BenchOptions& bench, const Options& options) {
  cuda::CudaDevice& gpu = OpenGpu();
  const double copy = CopyBytesPerSecond(gpu, 9);
  std::fprintf(stderr, "%s, copy %.2f TB/s, %d candidates%s\n", GpuName().c_str(), copy / 1e12,
               options.n_candidates, options.is_pinned ? ", keys and values pinned" : "");
  std::fprintf(stderr, "%12s %5s %10s %10s %8s %10s %14s %14s %8s\n", "tokens", "bits", "us",
               "read us", "ratio", "exact us", "facts", "needles", "top 16");
  std::printf(
      "{\"bench\": \"gpu_coded_memory_attention\", \"gpu\": \"%s\", \"copy_bytes_per_second\": "
      "%.4g, \"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, \"top_k\": %d, \"candidates\": "
      "%d, \"pinned\": %s, \"runs\": [",
      GpuName().c_str(), copy, static_cast<int>(kHeads), static_cast<int>(kKvHeads),
      static_cast<int>(kDim), kTopK, options.n_candidates, options.is_pinned ? "true" : "false");
  bool is_first = true;
  for (const int64_t n : bench.sizes) {
    std::vector<Memory> memories;
    const int64_t n_memories = std::clamp<int64_t>(kCacheBytes / (n * kKvHeads * 16), 1, 6);
    for (int64_t m = 0; m < n_memories; ++m) {
      memories.push_back(MakeMemory(gpu, static_cast<uint64_t>(m + 1) << 40, n, options.is_pinned));
    }
    std::vector<float> one(kHeads * kDim);
    for (size_t i = 0; i < one.size(); ++i) one[i] = Normal(77 + i);
    const Layer layer{n, LayerQueries(gpu, one)};
    const Layer many{n, LayerQueries(gpu, FactQueries(memories[0], n))};
    const auto memory_of = [&](int64_t i) -> const Memory& {
      return memories[static_cast<size_t>(i % n_memories)];
    };
    double exact_us = 0.0;
    Found exact;
    if (!options.is_pinned) {
      exact_us = MedianMicroseconds(gpu, std::min(bench.repeats, 20),
                                    [&](int64_t i) { layer.Exact(memory_of(i)); });
      many.Exact(memories[0]);
      exact = many.queries.Read();
    }
    for (const int64_t bits : options.bits) {
      const KeyCoder coder(static_cast<int>(bits), kDim);
      const auto rotation =
          gpu.UploadConstant(coder.rotation().data(), coder.rotation().size() * sizeof(float));
      CHECK_OK(rotation.status());
      for (Memory& memory : memories) {
        memory.codes = {};
        memory.codes = *gpu.Allocate(static_cast<size_t>(kKvHeads * coder.code_bytes(n)));
        memory.factors =
            *gpu.Allocate(static_cast<size_t>(kKvHeads * coder.n_factors(n)) * sizeof(BFloat16));
        memory.mean = *gpu.Allocate(kKvHeads * kDim * sizeof(float));
        CHECK_OK(EncodeKeys(gpu, {.coder = &coder,
                                  .rotation = rotation->data<float>(),
                                  .keys = layer.Part(memory).keys,
                                  .codes = memory.codes.data<std::byte>(),
                                  .factors = memory.factors.data<BFloat16>(),
                                  .mean = memory.mean.data<float>()}));
      }
      const auto attend = [&](int64_t i) {
        layer.Coded(memory_of(i), static_cast<int>(bits), *rotation, options.n_candidates);
      };
      const double us = MedianMicroseconds(gpu, bench.repeats, attend);
      const double read_us = static_cast<double>(kKvHeads) *
                             static_cast<double>(coder.code_bytes(n) + 2 * coder.n_factors(n)) /
                             copy * 1e6;
      Recall recall;
      if (!options.is_pinned) {
        many.Coded(memories[0], static_cast<int>(bits), *rotation, options.n_candidates);
        recall = Compare(exact, many.queries.Read(), n);
      }
      std::fprintf(stderr, "%12lld %5d %10.1f %10.1f %8.3f %10.1f %6d of %4d %6d of %4d %8.4f\n",
                   static_cast<long long>(n), static_cast<int>(bits), us, read_us, us / read_us,
                   exact_us, recall.n_facts_found, recall.n_facts, recall.n_needles_found,
                   recall.n_needles, recall.of_top_k);
      std::printf(
          "%s{\"tokens\": %lld, \"bits\": %d, \"us\": %.2f, \"read_us\": %.2f, \"ratio\": %.4f, "
          "\"exact_us\": %.2f, \"facts\": %d, \"facts_found\": %d, \"needles\": %d, "
          "\"needles_found\": %d, \"top_k_recall\": %.5f}",
          is_first ? "" : ", ", static_cast<long long>(n), static_cast<int>(bits), us, read_us,
          us / read_us, exact_us, recall.n_facts, recall.n_facts_found, recall.n_needles,
          recall.n_needles_found, recall.of_top_k);
      is_first = false;
    }
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) {
  fovea::compute::Options options;
  std::vector<char*> rest = {argv[0]};
  for (int i = 1; i < argc; i += 2) {
    char* const value = i + 1 < argc ? argv[i + 1] : argv[0];
    if (std::strcmp(argv[i], "--bits") == 0) {
      options.bits = fovea::compute::ParseNumbers(value);
    } else if (std::strcmp(argv[i], "--candidates") == 0) {
      options.n_candidates = std::atoi(value);
    } else if (std::strcmp(argv[i], "--pinned") == 0) {
      options.is_pinned = std::atoi(value) != 0;
    } else {
      rest.push_back(argv[i]);
      rest.push_back(value);
    }
  }
  const fovea::compute::BenchOptions bench(static_cast<int>(rest.size()), rest.data(), "--tokens",
                                           {1000000, 16000000});
  fovea::compute::Run(bench, options);
}
