// Exact search and attention in one memory layer on a GPU, against reading the keys once at the
// speed of a copy on the same GPU, in the same run.
//
//   build/release/bin/gpu_memory_attention [--tokens 1000000,16000000] [--repeats 50]
//
// Keys and queries are random: 9 query heads, 3 KV heads of 64 dimensions in bfloat16, one query
// position, top 16. Each time is the median over the repeats of the time between two events that
// one call lies between; calls are queued one after another, and take turns between memories that together are larger than the cache. "copy": bytes read and
// written by a device-to-device copy of 4 GiB, over its time. A JSON object goes to stdout, a table to
// stderr. The results of the first call of each size are compared with a float64 scan on the host
// (--check 0: not).
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "compute/cuda/cuda_device.h"
#include "compute/memory_attention.h"

namespace fovea::compute {
namespace {

constexpr int64_t kHeads = 9, kKvHeads = 3, kDim = 64;
constexpr int kTopK = 16;

#define CHECK_OK(expr)                                                     \
  do {                                                                     \
    if (const absl::Status status = (expr); !status.ok()) {                \
      std::fprintf(stderr, "%s\n", std::string(status.message()).c_str()); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

// Normal numbers by counter, so that any part of them can be made again on the host.
__host__ __device__ inline float Normal(uint64_t counter) {
  const auto mix = [](uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  // A sum of four uniform numbers.
  const uint64_t bits = mix(counter);
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits >> (16 * i) & 0xffff) / 65536.0f - 0.5f;
  return sum * 1.7320508f;
}

__global__ void FillKernel(uint64_t seed, int64_t n, __nv_bfloat16* to) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[i] = __float2bfloat16(Normal(seed + static_cast<uint64_t>(i)));
  }
}

struct Timer {
  explicit Timer(cudaStream_t s) : stream(s) {
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
  }
  template <typename F>
  double Milliseconds(F call) {
    cudaEventRecord(begin, stream);
    call();
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float ms = 0.0f;
    cudaEventElapsedTime(&ms, begin, end);
    return ms;
  }
  cudaStream_t stream;
  cudaEvent_t begin, end;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double CopyBytesPerSecond(Device& device, cudaStream_t stream, int repeats) {
  constexpr size_t kBytes = size_t{4} << 30;
  const Buffer from = *device.Allocate(kBytes);
  const Buffer to = *device.Allocate(kBytes);
  FillKernel<<<4096, 256, 0, stream>>>(1, kBytes / 2, from.data<__nv_bfloat16>());
  Timer timer(stream);
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    times.push_back(timer.Milliseconds(
        [&] { CHECK_OK(device.Copy(from.data<void>(), kBytes, to.data<void>())); }));
  }
  return 2.0 * kBytes / (Median(times) / 1e3);
}

struct Memory {
  Buffer keys, values;
  uint64_t seed;
};

// Whether the kept keys of head 0 are the best of a scan in float64.
bool IsRight(const Memory& memory, int64_t n_tokens, const std::vector<float>& queries,
             const std::vector<int64_t>& positions) {
  std::vector<std::pair<double, int64_t>> best;
  std::vector<double> query(queries.begin(), queries.begin() + kDim);
  for (int64_t t = 0; t < n_tokens; ++t) {
    double score = 0.0;
    for (int64_t i = 0; i < kDim; ++i) {
      const float x = Normal(memory.seed + static_cast<uint64_t>(t * kDim + i));
      score += query[i] * static_cast<float>(BFloat16(x));
    }
    best.emplace_back(-score, t);
    if (best.size() < 4096) continue;
    std::nth_element(best.begin(), best.begin() + kTopK, best.end());
    best.resize(kTopK);
  }
  std::sort(best.begin(), best.end());
  for (int j = 0; j < kTopK; ++j) {
    if (best[j].second != positions[j]) return false;
  }
  return true;
}

void Run(const std::vector<int64_t>& sizes, int repeats, bool check) {
  auto device = Device::Create("cuda");
  CHECK_OK(device.status());
  cuda::CudaDevice& gpu = cuda::AsCuda(**device);
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  const double copy = CopyBytesPerSecond(gpu, gpu.stream(), 9);
  std::fprintf(stderr, "%s, copy %.2f TB/s\n%12s %10s %10s %8s %s\n", properties.name, copy / 1e12,
               "tokens", "us", "read us", "ratio", "right");
  std::printf("{\"bench\": \"gpu_memory_attention\", \"gpu\": \"%s\", \"copy_bytes_per_second\": %.4g, "
              "\"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, \"top_k\": %d, \"sizes\": [",
              properties.name, copy, static_cast<int>(kHeads), static_cast<int>(kKvHeads),
              static_cast<int>(kDim), kTopK);
  for (size_t s = 0; s < sizes.size(); ++s) {
    const int64_t n = sizes[s];
    const int64_t n_entries = kKvHeads * n * kDim;
    std::vector<Memory> memories;
    for (uint64_t m = 0; m < 2; ++m) {
      Memory& memory = memories.emplace_back();
      memory.seed = (m + 1) << 40;
      for (Buffer* buffer : {&memory.keys, &memory.values}) {
        auto allocated = gpu.Allocate(static_cast<size_t>(n_entries) * 2);
        CHECK_OK(allocated.status());
        *buffer = *std::move(allocated);
        FillKernel<<<4096, 256, 0, gpu.stream()>>>(memory.seed + (buffer == &memory.values ? 1u << 30 : 0),
                                                   n_entries, buffer->data<__nv_bfloat16>());
      }
    }
    std::vector<float> queries(kHeads * kDim);
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = Normal(77 + i);
    const Buffer q = *gpu.Allocate(queries.size() * sizeof(float));
    CHECK_OK(gpu.CopyFromHost(queries.data(), queries.size() * sizeof(float), q.data<void>()));
    const Buffer output = *gpu.Allocate(queries.size() * sizeof(float));
    const Buffer lse = *gpu.Allocate(kHeads * sizeof(float));
    const Buffer positions = *gpu.Allocate(kHeads * kTopK * sizeof(int64_t));
    const auto attend = [&](const Memory& memory) {
      const MemoryPart part{
          .keys = {DType::kBF16, memory.keys.data<void>(), {kKvHeads, n, kDim}},
          .values = {DType::kBF16, memory.values.data<void>(), {kKvHeads, n, kDim}}};
      CHECK_OK(MemoryAttention(gpu, {.queries = {q.data<float>(), {1, kHeads, kDim}},
                                     .parts = {&part, 1},
                                     .top_k = kTopK,
                                     .scale = 0.125f,
                                     .output = {output.data<float>(), {1, kHeads, kDim}},
                                     .lse = {lse.data<float>(), {1, kHeads}},
                                     .positions = positions.data<int64_t>()}));
    };
    attend(memories[0]);
    std::vector<int64_t> kept(kHeads * kTopK);
    CHECK_OK(gpu.CopyToHost(positions.data<void>(), kept.size() * sizeof(int64_t), kept.data()));
    const bool right = !check || IsRight(memories[0], n, queries, kept);
    // Queued one after another, as a token's layers are: what the host takes to queue one is hidden.
    constexpr int kWarm = 6;
    std::vector<cudaEvent_t> events(static_cast<size_t>(repeats + kWarm + 1));
    for (cudaEvent_t& event : events) cudaEventCreate(&event);
    for (size_t i = 0; i < events.size(); ++i) {
      cudaEventRecord(events[i], gpu.stream());
      if (i + 1 < events.size()) attend(memories[i % 2]);
    }
    CHECK_OK(gpu.Synchronize());
    std::vector<double> times;
    for (size_t i = kWarm; i + 1 < events.size(); ++i) {
      float ms = 0.0f;
      cudaEventElapsedTime(&ms, events[i], events[i + 1]);
      times.push_back(ms);
    }
    for (const cudaEvent_t event : events) cudaEventDestroy(event);
    const double us = Median(times) * 1e3;
    const double read_us = static_cast<double>(n_entries) * 2 / copy * 1e6;
    std::fprintf(stderr, "%12lld %10.1f %10.1f %8.3f %s\n", static_cast<long long>(n), us, read_us,
                 us / read_us, !check ? "-" : right ? "yes" : "NO");
    std::printf("%s{\"tokens\": %lld, \"us\": %.2f, \"read_us\": %.2f, \"ratio\": %.4f, \"right\": %s}",
                s > 0 ? ", " : "", static_cast<long long>(n), us, read_us, us / read_us,
                !check ? "null" : right ? "true" : "false");
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) {
  std::vector<int64_t> sizes = {1000000, 16000000};
  int repeats = 50;
  bool check = true;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--repeats") == 0) repeats = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--check") == 0) check = std::atoi(argv[i + 1]) != 0;
    if (std::strcmp(argv[i], "--tokens") == 0) {
      sizes.clear();
      for (char* at = argv[i + 1]; *at != '\0';) {
        sizes.push_back(std::strtoll(at, &at, 10));
        if (*at == ',') ++at;
      }
    }
  }
  fovea::compute::Run(sizes, repeats, check);
}
