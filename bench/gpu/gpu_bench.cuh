// What benches on a GPU share: random entries that can be made again on the host, the speed of a
// copy, medians of queued calls, and their options.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/float16.h"
#include "compute/cuda/cuda_device.h"

#define CHECK_OK(expr)                                                     \
  do {                                                                     \
    if (const absl::Status status = (expr); !status.ok()) {                \
      std::fprintf(stderr, "%s\n", std::string(status.message()).c_str()); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

namespace fovea::compute {

// About normal numbers by counter: a sum of four uniform ones.
__host__ __device__ inline float Normal(uint64_t counter) {
  uint64_t x = counter + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) sum += static_cast<float>(x >> (16 * i) & 0xffff) / 65536.0f - 0.5f;
  return sum * 1.7320508f;
}

static __global__ void NormalKernel(uint64_t seed, int64_t n, __nv_bfloat16* to) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    to[i] = __float2bfloat16(Normal(seed + static_cast<uint64_t>(i)));
  }
}

inline cuda::CudaDevice& OpenGpu() {
  auto device = Device::Create("cuda");
  CHECK_OK(device.status());
  return cuda::AsCuda(*device->release());  // for the life of the process
}

inline std::string GpuName() {
  cudaDeviceProp properties;
  return cudaGetDeviceProperties(&properties, 0) == cudaSuccess ? properties.name : "?";
}

// to[i] = Normal(seed + i), i < n; on the GPU, or in pinned memory.
inline void FillNormal(cuda::CudaDevice& gpu, uint64_t seed, int64_t n, __nv_bfloat16* to) {
  NormalKernel<<<4096, 256, 0, gpu.stream()>>>(seed, n, to);
}
// So many of them.
inline Buffer RandomEntries(cuda::CudaDevice& gpu, uint64_t seed, int64_t n) {
  auto buffer = gpu.Allocate(static_cast<size_t>(n) * sizeof(BFloat16));
  CHECK_OK(buffer.status());
  FillNormal(gpu, seed, n, buffer->data<__nv_bfloat16>());
  return *std::move(buffer);
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The median of the time that call(i) takes, i = 0, 1, …, queued one after another as the layers of
// a token are: what the host takes to queue one is hidden.
template <typename Call>
double MedianMicroseconds(cuda::CudaDevice& gpu, int repeats, Call call) {
  constexpr int kWarm = 6;
  std::vector<cudaEvent_t> events(static_cast<size_t>(repeats + kWarm + 1));
  for (cudaEvent_t& event : events) cudaEventCreate(&event);
  for (size_t i = 0; i < events.size(); ++i) {
    cudaEventRecord(events[i], gpu.stream());
    if (i + 1 < events.size()) call(static_cast<int64_t>(i));
  }
  CHECK_OK(gpu.Synchronize());
  std::vector<double> times;
  for (size_t i = kWarm; i + 1 < events.size(); ++i) {
    float ms = 0.0f;
    cudaEventElapsedTime(&ms, events[i], events[i + 1]);
    times.push_back(ms * 1e3);
  }
  for (const cudaEvent_t event : events) cudaEventDestroy(event);
  return Median(std::move(times));
}

// Read and written by a device-to-device copy of 4 GiB.
inline double CopyBytesPerSecond(cuda::CudaDevice& gpu, int repeats) {
  constexpr int64_t kBytes = int64_t{4} << 30;
  const Buffer from = RandomEntries(gpu, 1, kBytes / 2);
  const Buffer to = RandomEntries(gpu, 2, kBytes / 2);
  const double us = MedianMicroseconds(gpu, repeats, [&](int64_t) {
    CHECK_OK(gpu.Copy(from.data<void>(), static_cast<size_t>(kBytes), to.data<void>()));
  });
  return 2.0 * kBytes / (us / 1e6);
}

// "1,2,3"
inline std::vector<int64_t> ParseNumbers(const char* text) {
  std::vector<int64_t> numbers;
  for (char* at = const_cast<char*>(text); *at != '\0';) {
    numbers.push_back(std::strtoll(at, &at, 10));
    if (*at != ',') break;
    ++at;
  }
  return numbers;
}

// SIZES_OPTION N,N,… --repeats N --check 0|1, and where there is one, COUNTS_OPTION N,N,…
struct BenchOptions {
  BenchOptions(int argc, char** argv, const char* sizes_option, std::vector<int64_t> default_sizes,
               const char* counts_option = nullptr)
      : sizes(std::move(default_sizes)) {
    for (int i = 1; i < argc; i += 2) {
      const char* const value = i + 1 < argc ? argv[i + 1] : "";
      if (std::strcmp(argv[i], "--repeats") == 0) {
        repeats = std::max(1, std::atoi(value));
      } else if (std::strcmp(argv[i], "--check") == 0) {
        check = std::atoi(value) != 0;
      } else if (std::strcmp(argv[i], sizes_option) == 0) {
        sizes = ParseNumbers(value);
      } else if (counts_option != nullptr && std::strcmp(argv[i], counts_option) == 0) {
        counts = ParseNumbers(value);
      } else {
        std::fprintf(stderr, "%s: unknown; want %s N,N --repeats N --check 0|1\n", argv[i],
                     sizes_option);
        std::exit(1);
      }
    }
  }
  std::vector<int64_t> sizes, counts;
  int repeats = 50;
  bool check = true;
};

}  // namespace fovea::compute
