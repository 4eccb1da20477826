// Ops at the shapes of SmolLM2-135M (hidden 576, 9 heads of 64, 3 KV heads, FFN 1536, vocabulary
// 49152). FLOP/s and bytes/s are counters; bytes are those of the stored weights.
//   compute_bench --threads=2 --precision=int8 --benchmark_filter=Linear
// --target=AVX2 uses the kernels of one instruction set (Highway's names) although the processor
// has better ones, --vnni=0 none of VNNI's instructions, --amx=0 none of AMX's; oneDNN has
// ONEDNN_MAX_CPU_ISA for that.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "compute/attention.h"
#include "compute/code_scan.h"
#include "compute/cpu/amx.h"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"
#include "compute/key_scan.h"
#include "compute/linear.h"
#include "compute/qk_norm.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "hwy/highway.h"

namespace fovea::compute {
namespace {

int n_threads = 0;
std::string precision = "float32";

std::unique_ptr<Device> MakeDevice() {
  auto device = Device::Create("cpu", n_threads, precision);
  FOVEA_CHECK(device.ok());
  return *std::move(device);
}

std::vector<float> RandomFloats(int64_t n) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = uniform(generator);
  return values;
}

using benchmark::Counter;

void Rate(benchmark::State& state, const char* name, double per_iteration) {
  state.counters[name] = Counter(per_iteration, Counter::kIsIterationInvariantRate);
}

// Arguments: rows, in_features, out_features.
void BM_Linear(benchmark::State& state, DType dtype) {
  const auto device = MakeDevice();
  const int64_t n_tokens = state.range(0);
  const int64_t in_features = state.range(1);
  const int64_t out_features = state.range(2);
  const size_t row_bytes = *RowBytes(dtype, in_features);
  // As many copies of the weights as exceed the caches, as the layers of a model do.
  const size_t copy_bytes = row_bytes * static_cast<size_t>(out_features);
  const size_t n_copies = n_tokens <= 16 ? (size_t{64} << 20) / copy_bytes + 1 : 4;
  const std::vector<std::byte> weight(copy_bytes * n_copies, std::byte{0x21});
  std::vector<std::unique_ptr<Linear>> linears;
  for (size_t i = 0; i < n_copies; ++i) {
    auto linear = Linear::Create(
        *device, {.name = "bench",
                  .weight = {dtype, weight.data() + i * copy_bytes, {out_features, in_features}}});
    FOVEA_CHECK(linear.ok());
    linears.push_back(*std::move(linear));
  }
  const std::vector<float> x = RandomFloats(n_tokens * in_features);
  std::vector<float> out(static_cast<size_t>(n_tokens * out_features));
  const ConstView rows(x.data(), {n_tokens, in_features});
  const View products(out.data(), {n_tokens, out_features});
  for (const auto& linear : linears) {  // packs
    linear->PrepareSteps(*device);
    FOVEA_CHECK(linear->Forward(*device, rows, false, products).ok());
  }
  size_t next = 0;
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(linears[next]->Forward(*device, rows, false, products).ok());
    next = (next + 1) % n_copies;
  }
  Rate(state, "FLOP/s", 2.0 * static_cast<double>(n_tokens * in_features * out_features));
  Rate(state, "weight_bytes/s", static_cast<double>(copy_bytes));
}

void LinearShapes(benchmark::internal::Benchmark* b) {
  for (const int64_t n_tokens : {1, 4, 8, 16, 32, 64, 1024, 2048}) {
    b->Args({n_tokens, 576, 576})->Args({n_tokens, 576, 1536})->Args({n_tokens, 1536, 576});
  }
  b->Args({1, 576, 49152})->Args({128, 576, 49152})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_Linear, Q4_1, DType::kQ4_1)->Apply(LinearShapes);
void DecodeShapes(benchmark::internal::Benchmark* b) {
  for (const int64_t n_tokens : {1, 4, 8}) b->Args({n_tokens, 576, 1536});
  b->UseRealTime();
}
BENCHMARK_CAPTURE(BM_Linear, Q4_0, DType::kQ4_0)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(BM_Linear, Q8_0, DType::kQ8_0)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(BM_Linear, F16, DType::kF16)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(BM_Linear, BF16, DType::kBF16)->Apply(DecodeShapes);
BENCHMARK_CAPTURE(BM_Linear, F32, DType::kF32)->Apply(DecodeShapes);

// Arguments: queries, keys. T: of keys and values.
template <typename T>
void BM_Attention(benchmark::State& state) {
  const auto device = MakeDevice();
  const int64_t n_queries = state.range(0);
  const int64_t n_keys = state.range(1);
  const int64_t n_heads = 9;
  const int64_t n_kv_heads = 3;
  const int64_t head_dim = 64;
  const std::vector<float> queries = RandomFloats(n_queries * n_heads * head_dim);
  const std::vector<float> numbers = RandomFloats(n_keys * n_kv_heads * head_dim);
  std::vector<T> keys, values;
  for (const float number : numbers) {
    keys.emplace_back(number);
    values.emplace_back(number);
  }
  std::vector<float> output(queries.size());
  std::vector<float> lse(static_cast<size_t>(n_queries * n_heads));
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(Attention(*device, {.queries = {queries.data(), {n_queries, n_heads, head_dim}},
                                    .keys = {keys.data(), {n_keys, n_kv_heads, head_dim}},
                                    .values = {values.data(), {n_keys, n_kv_heads, head_dim}},
                                    .scale = 0.125f,
                                    .output = {output.data(), {n_queries, n_heads, head_dim}},
                                    .lse = {lse.data(), {n_queries, n_heads}}})
                    .ok());
  }
  const auto q = static_cast<double>(n_queries);
  const double pairs = q * static_cast<double>(n_keys) - q * (q - 1) / 2;
  Rate(state, "FLOP/s", 4.0 * pairs * static_cast<double>(n_heads * head_dim));
}
void AttentionShapes(benchmark::internal::Benchmark* b) {
  b->Args({1024, 1024})->Args({1024, 1152})->Args({128, 1152})->Args({16, 1024});
  b->Args({1, 256})->Args({1, 1024})->Args({1, 8192})->UseRealTime();
}
BENCHMARK(BM_Attention<float>)->Name("BM_Attention")->Apply(AttentionShapes);
BENCHMARK(BM_Attention<BFloat16>)->Name("BM_Attention/bf16")->Apply(AttentionShapes);

// The search of one memory layer for one token. Argument: keys of each KV head. bytes/s are those
// of the keys or codes; keys/s count each key once, whatever the number of query heads.
constexpr int64_t kScanHeads = 9;
constexpr int64_t kScanKvHeads = 3;
constexpr int64_t kScanDim = 64;

void BM_KeyScan(benchmark::State& state) {
  const auto device = MakeDevice();
  const int64_t n_keys = state.range(0);
  const std::vector<BFloat16> keys(static_cast<size_t>(kScanKvHeads * n_keys * kScanDim),
                                   BFloat16(0.5f));
  const std::vector<float> queries = RandomFloats(kScanHeads * kScanDim);
  constexpr int64_t kGroup = kScanHeads / kScanKvHeads;
  for ([[maybe_unused]] auto _ : state) {
    for (int64_t head = 0; head < kScanKvHeads; ++head) {
      TopK best(kGroup, 16);
      const KeyRun run{keys.data() + head * n_keys * kScanDim, n_keys, 0};
      FOVEA_CHECK(
          KeyScan(*device,
                  {.queries = {queries.data() + head * kGroup * kScanDim, {1, kGroup, kScanDim}},
                   .runs = {&run, 1}},
                  &best)
              .ok());
    }
  }
  Rate(state, "bytes/s", static_cast<double>(keys.size() * sizeof(BFloat16)));
  Rate(state, "keys/s", static_cast<double>(kScanKvHeads * n_keys));
}
BENCHMARK(BM_KeyScan)->Arg(65536)->Arg(262144)->Arg(2000000)->UseRealTime();

// Arguments: keys, questions that are asked at once, a position each.
void BM_CodeScan(benchmark::State& state, int bits) {
  const auto device = MakeDevice();
  const int64_t n_keys = state.range(0);
  const int64_t n_queries = state.range(1);
  const KeyCoder coder(bits, kScanDim);
  const auto code_bytes = static_cast<size_t>(coder.code_bytes(n_keys));
  const auto n_factors = static_cast<size_t>(coder.n_factors(n_keys));
  std::vector<std::byte> codes(kScanKvHeads * code_bytes);
  std::mt19937 generator(2);
  for (size_t i = 0; i + 4 <= codes.size(); i += 4) {
    const uint32_t word = generator();
    std::memcpy(codes.data() + i, &word, sizeof(word));
  }
  const std::vector<BFloat16> factors(kScanKvHeads * n_factors, BFloat16(1.0f));
  std::vector<CodedKeys> heads;
  for (size_t head = 0; head < kScanKvHeads; ++head) {
    heads.push_back({codes.data() + head * code_bytes, factors.data() + head * n_factors, n_keys});
  }
  const std::vector<float> queries = RandomFloats(n_queries * kScanHeads * kScanDim);
  constexpr int64_t kCandidates = 64;
  std::vector<int64_t> positions(static_cast<size_t>(n_queries * kScanHeads * kCandidates));
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(CodeScan(*device,
                         {.coder = &coder,
                          .heads = heads,
                          .queries = {queries.data(), {n_queries, kScanHeads, kScanDim}},
                          .n_candidates = kCandidates},
                         positions.data())
                    .ok());
  }
  Rate(state, "bytes/s", static_cast<double>(codes.size() + factors.size() * sizeof(BFloat16)));
  Rate(state, "keys/s", static_cast<double>(kScanKvHeads * n_keys));
}
void ScanSizes(benchmark::internal::Benchmark* b) {
  b->ArgsProduct({{65536, 262144, 2000000}, {1, 16}})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_CodeScan, 2, 2)->Apply(ScanSizes);
BENCHMARK_CAPTURE(BM_CodeScan, 4, 4)->Apply(ScanSizes);
BENCHMARK_CAPTURE(BM_CodeScan, 8, 8)->Apply(ScanSizes);

// Argument: tokens.
void BM_RmsNorm(benchmark::State& state) {
  const auto device = MakeDevice();
  const std::vector<float> x = RandomFloats(state.range(0) * 576);
  const std::vector<float> weight = RandomFloats(576);
  std::vector<float> out(x.size());
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(RmsNorm(*device, {.x = {x.data(), {state.range(0), 576}},
                                  .weight = {weight.data(), {576}},
                                  .out = {out.data(), {state.range(0), 576}}})
                    .ok());
  }
}
BENCHMARK(BM_RmsNorm)->Arg(1)->Arg(1024)->UseRealTime();

// Argument: tokens; heads as Qwen3-0.6B has them.
void BM_QkNorm(benchmark::State& state) {
  const auto device = MakeDevice();
  std::vector<float> queries = RandomFloats(state.range(0) * 16 * 128);
  std::vector<float> keys = RandomFloats(state.range(0) * 8 * 128);
  const std::vector<float> weight(128, 1.0f);
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(QkNorm(*device, {.queries = {queries.data(), {state.range(0), 16, 128}},
                                 .keys = {keys.data(), {state.range(0), 8, 128}},
                                 .query_weight = {weight.data(), {128}},
                                 .key_weight = {weight.data(), {128}}})
                    .ok());
  }
}
BENCHMARK(BM_QkNorm)->Arg(1)->Arg(1024)->UseRealTime();

void BM_SiluMul(benchmark::State& state) {
  const auto device = MakeDevice();
  const std::vector<float> gate = RandomFloats(state.range(0) * 1536);
  std::vector<float> out(gate.size());
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(SiluMul(*device, {.gate = {gate.data(), {state.range(0), 1536}},
                                  .up = {gate.data(), {state.range(0), 1536}},
                                  .out = {out.data(), {state.range(0), 1536}}})
                    .ok());
  }
}
BENCHMARK(BM_SiluMul)->Arg(1)->Arg(1024)->UseRealTime();

void BM_Rope(benchmark::State& state) {
  const auto device = MakeDevice();
  const std::vector<float> frequencies = RopeInverseFrequencies(64, 10000.0f, {});
  std::vector<float> x = RandomFloats(state.range(0) * 9 * 64);
  for ([[maybe_unused]] auto _ : state) {
    FOVEA_CHECK(Rope(*device, {.x = {x.data(), {state.range(0), 9, 64}},
                               .inverse_frequencies = {frequencies.data(), {32}},
                               .first_position = 100})
                    .ok());
  }
}
BENCHMARK(BM_Rope)->Arg(1)->Arg(1024)->UseRealTime();

}  // namespace
}  // namespace fovea::compute

namespace {

// False where there is no such instruction set.
bool UseTarget(std::string_view name) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (hwy::TargetName(target) != name) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  // Ours first: Google Benchmark refuses arguments that it does not know.
  int n_left = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string value(argument.substr(std::min(argument.find('=') + 1, argument.size())));
    if (argument.starts_with("--threads=")) {
      fovea::compute::n_threads = std::atoi(value.c_str());
    } else if (argument.starts_with("--precision=")) {
      fovea::compute::precision = value;
    } else if (argument == "--vnni=0") {
      fovea::compute::cpu::DisableVnniForTest(true);
    } else if (argument == "--amx=0") {
      fovea::compute::cpu::DisableAmxForTest(true);
    } else if (argument.starts_with("--target=")) {
      if (!UseTarget(value)) {
        std::cerr << "--target=" << value << ": this machine has ";
        for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
          std::cerr << hwy::TargetName(target) << " ";
        }
        std::cerr << "\n";
        return 2;
      }
    } else {
      argv[n_left++] = argv[i];
    }
  }
  argc = n_left;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
