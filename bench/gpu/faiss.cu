// Exact search and attention in one memory layer on a GPU against FAISS's exact search, and FAISS's
// IVF on the GPU against our scan of codes, on the same keys in the same run.
//
//   build/cuda-release/bin/gpu_faiss [--tokens 1000000,16000000] [--repeats 50]
//       [--clusters 0,2048] [--quantizer SQfp16] [--lists 0] [--ivf 0|1]
//
// 9 query heads, 3 KV heads of 64 dimensions in bfloat16, one query position, top 16; times are
// medians of calls that are queued one after another. FAISS searches by one call of bfKnn for each
// KV head, with the queries of its group, by inner product, k = 16, of the same bfloat16 keys and
// of queries rounded to bfloat16, on the same stream, with its default workspaces: the search
// alone, while ours attends to what it found as well. Both find the same keys, which is checked.
//
// The IVF is built by FAISS on the GPU (LayerIndex::Build), with as many lists as AutoSpecs names
// (--lists: another number), searched by a call for each KV head, and its candidates are scored by
// the stored keys and attended to (compute/coded_memory_attention.h). Its probes are the smallest
// number, of steps by a half, at which the keys that 576 confident query heads look for are found
// as they are by exact search, but for one in a hundred. Keys are about normal (--clusters 0),
// which suits an index least, or lie about so many centres of the same spread. A JSON object goes
// to stdout, a table to stderr.
#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <chrono>
#include <memory>

#include "bench/gpu/memory_layer.cuh"
#include "index/calibration.h"
#include "index/device_index.h"
#include "index/layer_index.h"

namespace fovea::compute {
namespace {

constexpr int64_t kGroup = kHeads / kKvHeads;
constexpr int64_t kRecallQueries = 64;
constexpr int kBits = 4;
constexpr double kTargetRecall = 0.99;
constexpr uint64_t kSeed = uint64_t{1} << 40, kCentreSeed = uint64_t{3} << 40;

// Number d of key i of a KV head.
__host__ __device__ inline float KeyAt(int64_t kv_head, int64_t i, int64_t d, int64_t n,
                                       int64_t n_clusters) {
  const float own = Normal(kSeed + static_cast<uint64_t>((kv_head * n + i) * kDim + d));
  if (n_clusters == 0) return own;
  const uint64_t cluster =
      (static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u >> 20) % static_cast<uint64_t>(n_clusters);
  return own + Normal(kCentreSeed + (static_cast<uint64_t>(kv_head * n_clusters) + cluster) * kDim +
                      static_cast<uint64_t>(d));
}

__global__ void KeysKernel(int64_t n, int64_t n_clusters, __nv_bfloat16* to) {
  const int64_t n_all = kKvHeads * n * kDim;
  for (int64_t at = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; at < n_all;
       at += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[at] = __float2bfloat16(KeyAt(at / (n * kDim), at / kDim % n, at % kDim, n, n_clusters));
  }
}

Buffer Upload(cuda::CudaDevice& gpu, const void* data, size_t size_bytes) {
  auto buffer = gpu.Allocate(size_bytes);
  CHECK_OK(buffer.status());
  CHECK_OK(gpu.CopyFromHost(data, size_bytes, buffer->data<void>()));
  return *std::move(buffer);
}

// The keys and values of a layer.
struct Layer {
  int64_t n_tokens;
  Buffer keys, values;
  MemoryPart Part() const {
    return {.keys = {DType::kBF16, keys.data<void>(), {kKvHeads, n_tokens, kDim}},
            .values = {DType::kBF16, values.data<void>(), {kKvHeads, n_tokens, kDim}}};
  }
};

// Of the confident query heads the share whose best key was found; and how many they are.
struct Recall {
  int n_confident = 0;
  double needles = 0.0, top_k = 0.0;
};
Recall Compare(const Found& exact, const Found& found) {
  Recall recall;
  for (size_t row = 0; row < exact.positions.size() / kTopK; ++row) {
    recall.top_k += CountFound(exact, found, row);
    if (!IsConfident(exact, row)) continue;
    ++recall.n_confident;
    recall.needles += found.Has(row, exact.positions[row * kTopK]) ? 1.0 : 0.0;
  }
  recall.needles /= std::max(1, recall.n_confident);
  recall.top_k /= static_cast<double>(exact.positions.size());
  return recall;
}

// FAISS's exact search, a call for each KV head.
class FaissKnn {
 public:
  FaissKnn(cuda::CudaDevice& gpu, const Layer& layer, const std::vector<float>& host)
      : gpu_(gpu), layer_(layer) {
    faiss_.setDefaultStream(gpu.native_queue()->number, gpu.stream());
    std::vector<BFloat16> rounded(host.size());
    FloatToBFloat16(host.data(), rounded.data(), host.size());
    queries_ = Upload(gpu, rounded.data(), rounded.size() * sizeof(BFloat16));
    scores_ = *gpu.Allocate(kHeads * kTopK * sizeof(float));
    positions_ = *gpu.Allocate(kHeads * kTopK * sizeof(int64_t));
  }
  void Search() {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      faiss::gpu::GpuDistanceParams p;
      p.metric = faiss::METRIC_INNER_PRODUCT;
      p.k = kTopK;
      p.dims = kDim;
      p.vectors = layer_.keys.data<BFloat16>() + h * layer_.n_tokens * kDim;
      p.vectorType = faiss::gpu::DistanceDataType::BF16;
      p.numVectors = layer_.n_tokens;
      p.queries = queries_.data<BFloat16>() + h * kGroup * kDim;
      p.queryType = faiss::gpu::DistanceDataType::BF16;
      p.numQueries = kGroup;
      p.outDistances = scores_.data<float>() + h * kGroup * kTopK;
      p.outIndices = positions_.data<int64_t>() + h * kGroup * kTopK;
      p.device = gpu_.native_queue()->number;
      faiss::gpu::bfKnn(&faiss_, p);
    }
  }
  std::vector<int64_t> Positions() const {
    std::vector<int64_t> host(kHeads * kTopK);
    CHECK_OK(gpu_.CopyToHost(positions_.data<void>(), positions_.size_bytes(), host.data()));
    return host;
  }

 private:
  cuda::CudaDevice& gpu_;
  const Layer& layer_;
  faiss::gpu::StandardGpuResources faiss_;
  Buffer queries_, scores_, positions_;
};

struct Options {
  std::vector<int64_t> clusters = {0, 2048};
  std::string quantizer = "SQfp16";
  int64_t n_lists = 0;
  bool has_ivf = true;
};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// An index of the keys, searched on the GPU.
class Ivf {
 public:
  Ivf(cuda::CudaDevice& gpu, const Layer& layer, const std::string& spec) : gpu_(gpu) {
    const int64_t n = layer.n_tokens;
    std::vector<BFloat16> host(static_cast<size_t>(kKvHeads * n * kDim));
    CHECK_OK(gpu.CopyToHost(layer.keys.data<void>(), layer.keys.size_bytes(), host.data()));
    std::vector<index::HeadKeys> keys;
    for (int64_t h = 0; h < kKvHeads; ++h) keys.push_back({{host.data() + h * n * kDim, n, 0}});
    const auto start = std::chrono::steady_clock::now();
    auto built = index::LayerIndex::Build(gpu, spec, keys, kDim, Progress());
    CHECK_OK(built.status());
    build_seconds = SecondsSince(start);
    const auto copying = std::chrono::steady_clock::now();
    bytes = (*built)->DeviceBytes(gpu);
    auto copied = (*built)->CopyTo(gpu);
    CHECK_OK(copied.status());
    CHECK_OK(gpu.Synchronize());
    copy_seconds = SecondsSince(copying);
    index_ = *std::move(copied);
    n_lists = (*built)->ProbeRange().second;
  }
  void Attend(const Layer& layer, const LayerQueries& queries, int n_probe, int n_candidates) {
    CHECK_OK(gpu_.Reserve(
        static_cast<size_t>(queries.n_queries() * kHeads * n_candidates) * sizeof(int64_t),
        &found_));
    CHECK_OK(index_->Search(gpu_, {.queries = queries.data(),
                                   .n_queries = queries.n_queries(),
                                   .n_heads = kHeads,
                                   .n_candidates = n_candidates,
                                   .n_probe = n_probe,
                                   .keys = found_.data<int64_t>()}));
    queries.Approximate({.entries = layer.Part(),
                         .codes = {},
                         .found = {.keys = found_.data<int64_t>(), .n_found = n_candidates}},
                        n_candidates);
  }
  double build_seconds = 0.0, copy_seconds = 0.0;
  size_t bytes = 0;
  int n_lists = 0;

 private:
  cuda::CudaDevice& gpu_;
  std::unique_ptr<index::DeviceIndex> index_;
  Buffer found_;
};

// The codes of the keys, and what they are made with.
struct Codes {
  KeyCoder coder{kBits, kDim};
  Buffer rotation, codes, factors, mean;

  Codes(cuda::CudaDevice& gpu, const Layer& layer) {
    const int64_t n = layer.n_tokens;
    rotation = Upload(gpu, coder.rotation().data(), coder.rotation().size() * sizeof(float));
    codes = *gpu.Allocate(static_cast<size_t>(kKvHeads * coder.code_bytes(n)));
    factors = *gpu.Allocate(static_cast<size_t>(kKvHeads * coder.n_factors(n)) * sizeof(BFloat16));
    mean = *gpu.Allocate(kKvHeads * kDim * sizeof(float));
    CHECK_OK(EncodeKeys(gpu, {.coder = &coder,
                              .rotation = rotation.data<float>(),
                              .keys = layer.Part().keys,
                              .codes = codes.data<std::byte>(),
                              .factors = factors.data<BFloat16>(),
                              .mean = mean.data<float>()}));
  }
  CodedMemoryPart Part(const Layer& layer) const {
    return {.entries = layer.Part(),
            .codes = {.bits = kBits,
                      .codes = codes.data<std::byte>(),
                      .factors = factors.data<BFloat16>(),
                      .mean = mean.data<float>(),
                      .rotation = rotation.data<float>()}};
  }
};

void RunIvf(cuda::CudaDevice& gpu, const BenchOptions& bench, const Options& options,
            const Layer& layer, const LayerQueries& one, const LayerQueries& many,
            double exact_us) {
  constexpr int kCandidates = 128;
  const int64_t n = layer.n_tokens;
  many.Exact(layer.Part());
  const Found exact = many.Read();
  double codes_us = 0.0;
  Recall of_codes;
  {
    const Codes codes(gpu, layer);
    const CodedMemoryPart part = codes.Part(layer);
    codes_us = MedianMicroseconds(gpu, bench.repeats,
                                  [&](int64_t) { one.Approximate(part, kCandidates); });
    many.Approximate(part, kCandidates);
    of_codes = Compare(exact, many.Read());
  }
  const std::string spec =
      options.n_lists > 0
          ? StrCat("IVF", options.n_lists, ",", options.quantizer)
          : StrCat(
                "IVF",
                int64_t{1} << static_cast<int>(std::log2(6.0 * std::sqrt(static_cast<double>(n)))),
                ",", options.quantizer);
  Ivf ivf(gpu, layer, spec);
  Recall recall;
  int n_probe = 1;
  const int most = std::min(ivf.n_lists, index::kMaxDeviceProbe);
  while (true) {
    ivf.Attend(layer, many, n_probe, kCandidates);
    recall = Compare(exact, many.Read());
    if (recall.needles >= kTargetRecall || n_probe == most) break;
    n_probe = std::min(n_probe + std::max(1, n_probe / 2), most);
  }
  const double ivf_us = MedianMicroseconds(
      gpu, bench.repeats, [&](int64_t) { ivf.Attend(layer, one, n_probe, kCandidates); });
  std::fprintf(stderr,
               "  %s: built in %.1f s, copied in %.1f s, %.2f GB; %d of %d lists (%.2f%%), needle "
               "recall %.4f of %d, top 16 %.4f: %.1f us a layer; codes of %d bits %.1f us (needle "
               "recall %.4f); exact %.1f us\n",
               spec.c_str(), ivf.build_seconds, ivf.copy_seconds,
               static_cast<double>(ivf.bytes) / 1e9, n_probe, ivf.n_lists,
               100.0 * n_probe / ivf.n_lists, recall.needles, recall.n_confident, recall.top_k,
               ivf_us, kBits, codes_us, of_codes.needles, exact_us);
  std::printf(
      ", \"ivf\": {\"spec\": \"%s\", \"build_seconds\": %.2f, \"copy_seconds\": %.2f, \"bytes\": "
      "%zu, \"lists\": %d, \"probes\": %d, \"share_of_lists\": %.5f, \"needles\": %d, "
      "\"needle_recall\": %.5f, \"top_k_recall\": %.5f, \"us\": %.2f, \"codes_us\": %.2f, "
      "\"codes_needle_recall\": %.5f}",
      spec.c_str(), ivf.build_seconds, ivf.copy_seconds, ivf.bytes, ivf.n_lists, n_probe,
      static_cast<double>(n_probe) / ivf.n_lists, recall.n_confident, recall.needles, recall.top_k,
      ivf_us, codes_us, of_codes.needles);
}

void Run(const BenchOptions& bench, const Options& options) {
  cuda::CudaDevice& gpu = OpenGpu();
  const double copy = CopyBytesPerSecond(gpu, 9);
  std::fprintf(stderr, "%s, copy %.2f TB/s, FAISS %s\n", GpuName().c_str(), copy / 1e12,
               index::FaissVersion().c_str());
  std::fprintf(stderr, "%12s %9s %10s %10s %12s %10s %8s\n", "tokens", "clusters", "ours us",
               "read us", "bfKnn us", "bfKnn/ours", "same");
  std::printf(
      "{\"bench\": \"gpu_faiss\", \"gpu\": \"%s\", \"faiss\": \"%s\", \"copy_bytes_per_second\": "
      "%.4g, \"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, \"top_k\": %d, \"runs\": [",
      GpuName().c_str(), index::FaissVersion().c_str(), copy, static_cast<int>(kHeads),
      static_cast<int>(kKvHeads), static_cast<int>(kDim), kTopK);
  bool is_first = true;
  for (const int64_t n : bench.sizes) {
    for (const int64_t n_clusters : options.clusters) {
      auto keys = gpu.Allocate(static_cast<size_t>(kKvHeads * n * kDim) * sizeof(BFloat16));
      CHECK_OK(keys.status());
      KeysKernel<<<4096, 256, 0, gpu.stream()>>>(n, n_clusters, keys->data<__nv_bfloat16>());
      CHECK_OK(gpu.Synchronize());
      std::vector<float> asked(kHeads * kDim);
      for (size_t i = 0; i < asked.size(); ++i) {
        asked[i] = static_cast<float>(BFloat16(Normal(77 + i)));
      }
      const Layer layer{n, *std::move(keys), RandomEntries(gpu, 7, kKvHeads * n * kDim)};
      const LayerQueries one(gpu, asked);
      const MemoryPart part = layer.Part();
      const double ours_us =
          MedianMicroseconds(gpu, bench.repeats, [&](int64_t) { one.Exact(part); });
      const double read_us = static_cast<double>(layer.keys.size_bytes()) / copy * 1e6;
      double knn_us = 0.0;
      int n_same = 0;
      {
        FaissKnn knn(gpu, layer, asked);
        knn_us =
            MedianMicroseconds(gpu, std::min(bench.repeats, 15), [&](int64_t) { knn.Search(); });
        const Found theirs{knn.Positions(), {}};
        const Found ours = one.Read();
        for (size_t row = 0; row < kHeads; ++row) n_same += CountFound(ours, theirs, row);
      }
      std::fprintf(stderr, "%12lld %9lld %10.1f %10.1f %12.1f %10.1f %4d/%d\n",
                   static_cast<long long>(n), static_cast<long long>(n_clusters), ours_us, read_us,
                   knn_us, knn_us / ours_us, n_same, static_cast<int>(kHeads) * kTopK);
      std::printf(
          "%s{\"tokens\": %lld, \"clusters\": %lld, \"ours_us\": %.2f, \"read_us\": %.2f, "
          "\"bfknn_us\": %.2f, \"bfknn_ratio\": %.3f, \"same_keys\": %d",
          is_first ? "" : ", ", static_cast<long long>(n), static_cast<long long>(n_clusters),
          ours_us, read_us, knn_us, knn_us / ours_us, n_same);
      is_first = false;
      if (options.has_ivf) {
        const LayerQueries many(
            gpu, SeekingQueries(kRecallQueries, n, [&](int64_t kv_head, int64_t key, int64_t d) {
              return KeyAt(kv_head, key, d, n, n_clusters);
            }));
        RunIvf(gpu, bench, options, layer, one, many, ours_us);
      }
      std::printf("}");
      std::fflush(stdout);
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
    if (std::strcmp(argv[i], "--clusters") == 0) {
      options.clusters = fovea::compute::ParseNumbers(value);
    } else if (std::strcmp(argv[i], "--quantizer") == 0) {
      options.quantizer = value;
    } else if (std::strcmp(argv[i], "--lists") == 0) {
      options.n_lists = std::atoll(value);
    } else if (std::strcmp(argv[i], "--ivf") == 0) {
      options.has_ivf = std::atoi(value) != 0;
    } else {
      rest.push_back(argv[i]);
      rest.push_back(value);
    }
  }
  const fovea::compute::BenchOptions bench(static_cast<int>(rest.size()), rest.data(), "--tokens",
                                           {1000000, 16000000});
  fovea::compute::Run(bench, options);
}
