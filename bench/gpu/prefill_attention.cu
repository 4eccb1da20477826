// Attention of many queries on a GPU: windows of a batch in one call, and one long prompt; on
// tensor cores and in float32.
//
//   build/cuda-release/bin/gpu_prefill_attention [--rows 1152,16384] [--repeats 30]
//
// Rows of a window, or of the prompt where they are more than 4,096; windows make 36,864 rows
// together. Heads as SmolLM2-135M's (9 query heads, 3 KV heads of 64 dimensions) and as an 8B
// model's (32, 8, 128), causal. Keys and values in float32, as the layers leave them, so that their
// rounding counts. Each time is the median over the repeats of the time between two events that one
// call lies between. JSON to stdout, a table to stderr; TFLOP/s count the products that causality
// leaves. The first output is compared with float64 on the host, for some rows (--check 0: not):
// the largest difference, relative to the largest output.
#include <cmath>

#include "bench/gpu/gpu_bench.cuh"
#include "compute/attention.h"

namespace fovea::compute {
namespace {

struct Heads {
  int64_t n, n_kv, dim;
};

double LargestError(const Heads& heads, const std::vector<float>& queries,
                    const std::vector<float>& keys, const std::vector<float>& values,
                    const std::vector<float>& output, int64_t window) {
  const auto n_rows = static_cast<int64_t>(keys.size()) / (heads.n_kv * heads.dim);
  double worst = 0.0, largest = 0.0;
  for (int64_t row = 1; row < n_rows; row += 997) {
    const int64_t begin = row / window * window;
    const int64_t head = row % heads.n;
    const int64_t kv_head = head / (heads.n / heads.n_kv);
    const float* const query = queries.data() + (row * heads.n + head) * heads.dim;
    std::vector<double> weights;
    double high = -INFINITY, sum = 0.0;
    for (int64_t k = begin; k <= row; ++k) {
      const float* const key = keys.data() + (k * heads.n_kv + kv_head) * heads.dim;
      double score = 0.0;
      for (int64_t i = 0; i < heads.dim; ++i) score += double{query[i]} * key[i];
      weights.push_back(score / std::sqrt(static_cast<double>(heads.dim)));
      high = std::max(high, weights.back());
    }
    for (double& weight : weights) sum += weight = std::exp(weight - high);
    for (int64_t i = 0; i < heads.dim; ++i) {
      double want = 0.0;
      for (size_t k = 0; k < weights.size(); ++k) {
        want += weights[k] / sum *
                values[static_cast<size_t>(
                    ((begin + static_cast<int64_t>(k)) * heads.n_kv + kv_head) * heads.dim + i)];
      }
      const double got = output[static_cast<size_t>((row * heads.n + head) * heads.dim + i)];
      worst = std::max(worst, std::isnan(got) ? INFINITY : std::abs(got - want));
      largest = std::max(largest, std::abs(want));
    }
  }
  return worst / largest;
}

void Run(const std::vector<int64_t>& sizes, int repeats, bool check) {
  cuda::CudaDevice& gpu = OpenGpu();
  std::fprintf(stderr, "%s\n%8s %8s %12s %10s %10s %10s %s\n", GpuName().c_str(), "window", "rows",
               "heads", "precision", "us", "TFLOP/s", "error");
  std::printf("{\"bench\": \"gpu_prefill_attention\", \"gpu\": \"%s\", \"sizes\": [",
              GpuName().c_str());
  const char* separator = "";
  for (const int64_t window : sizes) {
    const int64_t n_windows = window > 4096 ? 1 : std::max<int64_t>(1, 36864 / window);
    const int64_t n_rows = window * n_windows;
    std::vector<int64_t> begins;
    for (int64_t w = 0; w <= n_windows; ++w) begins.push_back(w * window);
    for (const Heads& heads : {Heads{9, 3, 64}, Heads{32, 8, 128}}) {
      const auto fill = [](int64_t n, uint64_t seed) {
        std::vector<float> numbers(static_cast<size_t>(n));
        for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = Normal(seed + i);
        return numbers;
      };
      const std::vector<float> queries = fill(n_rows * heads.n * heads.dim, uint64_t{1} << 40);
      const std::vector<float> keys = fill(n_rows * heads.n_kv * heads.dim, uint64_t{2} << 40);
      const std::vector<float> values = fill(n_rows * heads.n_kv * heads.dim, uint64_t{3} << 40);
      const auto upload = [&](const std::vector<float>& numbers) {
        auto buffer = gpu.UploadConstant(numbers.data(), numbers.size() * sizeof(float));
        CHECK_OK(buffer.status());
        return *std::move(buffer);
      };
      const Buffer q = upload(queries), k = upload(keys), v = upload(values);
      const Buffer output = *gpu.Allocate(queries.size() * sizeof(float));
      for (const Precision precision : {Precision::kBFloat16, Precision::kFloat32}) {
        gpu.set_precision(precision);
        const auto attend = [&](int64_t) {
          CHECK_OK(
              Attention(gpu, {.queries = {q.data<float>(), {n_rows, heads.n, heads.dim}},
                              .keys = {k.data<float>(), {n_rows, heads.n_kv, heads.dim}},
                              .values = {v.data<float>(), {n_rows, heads.n_kv, heads.dim}},
                              .scale = 1.0f / std::sqrt(static_cast<float>(heads.dim)),
                              .sequence_begins = begins,
                              .output = {output.data<float>(), {n_rows, heads.n, heads.dim}}}));
        };
        CHECK_OK(gpu.Fill(NAN, n_rows * heads.n * heads.dim, output.data<float>()));
        attend(0);
        std::vector<float> first(queries.size());
        CHECK_OK(gpu.CopyToHost(output.data<void>(), first.size() * sizeof(float), first.data()));
        const double error =
            check ? LargestError(heads, queries, keys, values, first, window) : -1.0;
        const int n = precision == Precision::kFloat32 ? std::max(3, repeats / 10) : repeats;
        const double us = MedianMicroseconds(gpu, n, attend);
        const double flop = 2.0 * static_cast<double>(window) * static_cast<double>(window + 1) *
                            static_cast<double>(n_windows * heads.n * heads.dim);
        std::fprintf(stderr, "%8lld %8lld %4lld/%2lld x%4lld %10s %10.1f %10.1f %.1e\n",
                     static_cast<long long>(window), static_cast<long long>(n_rows),
                     static_cast<long long>(heads.n), static_cast<long long>(heads.n_kv),
                     static_cast<long long>(heads.dim),
                     std::string(PrecisionName(precision)).c_str(), us, flop / us / 1e6, error);
        std::printf(
            "%s{\"window\": %lld, \"rows\": %lld, \"heads\": %lld, \"kv_heads\": %lld, "
            "\"head_dim\": %lld, \"precision\": \"%s\", \"us\": %.2f, \"tflops\": %.2f, "
            "\"relative_error\": %.3g}",
            separator, static_cast<long long>(window), static_cast<long long>(n_rows),
            static_cast<long long>(heads.n), static_cast<long long>(heads.n_kv),
            static_cast<long long>(heads.dim), std::string(PrecisionName(precision)).c_str(), us,
            flop / us / 1e6, error);
        separator = ", ";
      }
    }
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) {
  const fovea::compute::BenchOptions options(argc, argv, "--rows", {1152, 16384});
  fovea::compute::Run(options.sizes, options.repeats, options.check);
}
