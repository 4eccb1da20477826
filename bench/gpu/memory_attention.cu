// Exact search and attention in one memory layer on a GPU, against reading the keys once at the
// speed of a copy on the same GPU, in the same run.
//
//   build/cuda-release/bin/gpu_memory_attention [--tokens 1000000,16000000] [--repeats 50]
//     [--questions 1,2,4,8,16]
//
// Keys and queries are random: 9 query heads, 3 KV heads of 64 dimensions in bfloat16, one query
// position, top 16. Each time is the median over the repeats of the time between two events that
// one call lies between; calls are queued one after another, and take turns between memories that
// together are larger than the cache. "copy": bytes read and written by a device-to-device copy of
// 4 GiB, over its time. A JSON object goes to stdout, a table to stderr. The results of the first
// call of each size are compared with a float64 scan on the host
// (--check 0: not). --questions: beside that, so many queries in one call, which share reads of the
// keys, against as many calls of one query and against reading the keys once; "same": whether
// outputs, positions and scores are those of the single calls, bit for bit.
#include "bench/gpu/gpu_bench.cuh"
#include "compute/memory_attention.h"

namespace fovea::compute {
namespace {

constexpr int64_t kHeads = 9, kKvHeads = 3, kDim = 64;
constexpr int kTopK = 16;

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

// Many queries at once and one by one.
struct Together {
  double us = 0.0;
  double single_us = 0.0;  // of as many calls of one query
  bool is_same = false;
};
Together AskTogether(cuda::CudaDevice& gpu, const std::vector<Memory>& memories, int64_t n_tokens,
                     int64_t n_questions, int repeats) {
  const auto n_numbers = static_cast<size_t>(n_questions * kHeads * kDim);
  const auto n_rows = static_cast<size_t>(n_questions * kHeads);
  std::vector<float> queries(n_numbers);
  for (size_t i = 0; i < queries.size(); ++i) queries[i] = Normal(7777 + i);
  const Buffer q = *gpu.Allocate(n_numbers * sizeof(float));
  CHECK_OK(gpu.CopyFromHost(queries.data(), n_numbers * sizeof(float), q.data<void>()));
  const Buffer output = *gpu.Allocate(n_numbers * sizeof(float));
  const Buffer lse = *gpu.Allocate(n_rows * sizeof(float));
  const Buffer positions = *gpu.Allocate(n_rows * kTopK * sizeof(int64_t));
  const Buffer scores = *gpu.Allocate(n_rows * kTopK * sizeof(float));
  // n queries of memory i mod 2 from `first` on.
  const auto attend = [&](int64_t i, int64_t first, int64_t n) {
    const Memory& memory = memories[static_cast<size_t>(i % 2)];
    const MemoryPart part{
        .keys = {DType::kBF16, memory.keys.data<void>(), {kKvHeads, n_tokens, kDim}},
        .values = {DType::kBF16, memory.values.data<void>(), {kKvHeads, n_tokens, kDim}}};
    const int64_t row = first * kHeads;
    CHECK_OK(MemoryAttention(gpu, {.queries = {q.data<float>() + row * kDim, {n, kHeads, kDim}},
                                   .parts = {&part, 1},
                                   .top_k = kTopK,
                                   .scale = 0.125f,
                                   .output = {output.data<float>() + row * kDim, {n, kHeads, kDim}},
                                   .lse = {lse.data<float>() + row, {n, kHeads}},
                                   .positions = positions.data<int64_t>() + row * kTopK,
                                   .scores = scores.data<float>() + row * kTopK}));
  };
  const auto results = [&] {
    std::vector<std::byte> bytes;
    for (const Buffer* buffer : {&output, &lse, &positions, &scores}) {
      const size_t begin = bytes.size();
      bytes.resize(begin + buffer->size_bytes());
      CHECK_OK(gpu.CopyToHost(buffer->data<void>(), buffer->size_bytes(), bytes.data() + begin));
    }
    return bytes;
  };
  Together together;
  attend(0, 0, n_questions);
  const std::vector<std::byte> at_once = results();
  for (int64_t i = 0; i < n_questions; ++i) attend(0, i, 1);
  together.is_same = results() == at_once;
  together.us = MedianMicroseconds(gpu, repeats, [&](int64_t i) { attend(i, 0, n_questions); });
  together.single_us = MedianMicroseconds(gpu, repeats, [&](int64_t i) {
    for (int64_t question = 0; question < n_questions; ++question) {
      attend(i * n_questions + question, question, 1);
    }
  });
  return together;
}

void Run(const std::vector<int64_t>& sizes, const std::vector<int64_t>& questions, int repeats,
         bool check) {
  cuda::CudaDevice& gpu = OpenGpu();
  const double copy = CopyBytesPerSecond(gpu, 9);
  std::fprintf(stderr, "%s, copy %.2f TB/s\n%12s %10s %10s %8s %s\n", GpuName().c_str(),
               copy / 1e12, "tokens", "us", "read us", "ratio", "right");
  std::printf(
      "{\"bench\": \"gpu_memory_attention\", \"gpu\": \"%s\", \"copy_bytes_per_second\": %.4g, "
      "\"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, \"top_k\": %d, \"sizes\": [",
      GpuName().c_str(), copy, static_cast<int>(kHeads), static_cast<int>(kKvHeads),
      static_cast<int>(kDim), kTopK);
  for (size_t s = 0; s < sizes.size(); ++s) {
    const int64_t n = sizes[s];
    const int64_t n_entries = kKvHeads * n * kDim;
    std::vector<Memory> memories;
    for (uint64_t m = 0; m < 2; ++m) {
      Memory& memory = memories.emplace_back();
      memory.seed = (m + 1) << 40;
      memory.keys = RandomEntries(gpu, memory.seed, n_entries);
      memory.values = RandomEntries(gpu, memory.seed + (uint64_t{1} << 38), n_entries);
    }
    std::vector<float> queries(kHeads * kDim);
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = Normal(77 + i);
    const Buffer q = *gpu.Allocate(queries.size() * sizeof(float));
    CHECK_OK(gpu.CopyFromHost(queries.data(), queries.size() * sizeof(float), q.data<void>()));
    const Buffer output = *gpu.Allocate(queries.size() * sizeof(float));
    const Buffer lse = *gpu.Allocate(kHeads * sizeof(float));
    const Buffer positions = *gpu.Allocate(kHeads * kTopK * sizeof(int64_t));
    const auto attend = [&](int64_t i) {
      const Memory& memory = memories[static_cast<size_t>(i % 2)];
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
    attend(0);
    std::vector<int64_t> kept(kHeads * kTopK);
    CHECK_OK(gpu.CopyToHost(positions.data<void>(), kept.size() * sizeof(int64_t), kept.data()));
    const bool right = !check || IsRight(memories[0], n, queries, kept);
    const double us = MedianMicroseconds(gpu, repeats, attend);
    const double read_us = static_cast<double>(n_entries) * 2 / copy * 1e6;
    std::fprintf(stderr, "%12lld %10.1f %10.1f %8.3f %s\n", static_cast<long long>(n), us, read_us,
                 us / read_us,
                 !check  ? "-"
                 : right ? "yes"
                         : "NO");
    std::printf(
        "%s{\"tokens\": %lld, \"us\": %.2f, \"read_us\": %.2f, \"ratio\": %.4f, \"right\": %s, "
        "\"together\": [",
        s > 0 ? ", " : "", static_cast<long long>(n), us, read_us, us / read_us,
        !check  ? "null"
        : right ? "true"
                : "false");
    for (size_t i = 0; i < questions.size(); ++i) {
      const Together together = AskTogether(gpu, memories, n, questions[i], repeats);
      std::fprintf(stderr, "%12s %10.1f %10.1f %8.3f %s; %.1f us one by one: %.2f times\n",
                   (std::to_string(questions[i]) + " at once").c_str(), together.us, read_us,
                   together.us / read_us, together.is_same ? "same" : "NOT THE SAME",
                   together.single_us, together.single_us / together.us);
      std::printf(
          "%s{\"questions\": %lld, \"us\": %.2f, \"single_us\": %.2f, \"ratio_to_read\": %.4f, "
          "\"speedup\": %.3f, \"same\": %s}",
          i > 0 ? ", " : "", static_cast<long long>(questions[i]), together.us, together.single_us,
          together.us / read_us, together.single_us / together.us,
          together.is_same ? "true" : "false");
    }
    std::printf("]}");
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) {
  const fovea::compute::BenchOptions options(argc, argv, "--tokens", {1000000, 16000000},
                                             "--questions");
  fovea::compute::Run(options.sizes, options.counts, options.repeats, options.check);
}
