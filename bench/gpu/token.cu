// A whole token of a model with memory layers on a GPU, against reading its weights and the keys of
// its memory (dense: and the values) once at the speed of a copy on the same GPU, in the same run.
//
//   build/cuda-release/bin/gpu_token --model FILE [--adapter DIR] [--mem-layers 9,15,21]
//       [--mode exact|approximate|dense] [--bits 4] [--tokens 1000000] [--prompt 300] [--steps 60]
//
// The memory is random, as large as --tokens in each memory layer, and lies on the GPU; exact: the
// top 16 of each head are attended to; approximate: the same of 128 that codes of the keys name,
// and the codes are what is read. A step is what an answer does for a token: it runs the model on
// the last token and gives the next one's id to the host. Time is the host's, the median over the
// steps. "weights": the size of the model's files. "alone": the same without the memory, against
// the weights. A JSON object goes to stdout, a table to stderr.
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>

#include "bench/gpu/gpu_bench.cuh"
#include "compute/attention.h"
#include "compute/coded_memory_attention.h"
#include "compute/memory_attention.h"
#include "model/transformer.h"

namespace fovea::compute {
namespace {

constexpr int kTopK = 16;

class RandomMemory final : public model::MemorySource {
 public:
  // `bits` of codes; 0: the keys are read.
  RandomMemory(cuda::CudaDevice& gpu, const model::Transformer& model, int64_t n_tokens,
               bool is_dense, int bits)
      : gpu_(gpu), n_tokens_(n_tokens), is_dense_(is_dense), bits_(bits) {
    const model::ModelConfig& c = model.config();
    const int64_t n = c.n_kv_heads * n_tokens * c.head_dim;
    for (int64_t m = 0; m < model.n_mem_layers(); ++m) {
      keys_.push_back(RandomEntries(gpu, static_cast<uint64_t>(2 * m + 1) << 40, n));
      values_.push_back(RandomEntries(gpu, static_cast<uint64_t>(2 * m + 2) << 40, n));
      if (bits > 0) {
        Encode(c.n_kv_heads, c.head_dim, keys_.back());
        continue;
      }
      bytes_ += n * static_cast<int64_t>(sizeof(BFloat16)) * (is_dense ? 2 : 1);
    }
  }

  model::MemoryPlace place() const override { return model::MemoryPlace::kDevice; }
  absl::Status BeginStep(uint64_t* recording_id) override {
    *recording_id = 1;
    return absl::OkStatus();
  }
  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override {
    const auto m = static_cast<size_t>(query.memory_layer);
    const auto entries = [&](const Buffer& buffer) {
      return ConstView(DType::kBF16, buffer.data<void>(),
                       {query.n_kv_heads, n_tokens_, query.head_dim});
    };
    const ConstView queries(query.queries, {query.n_queries, query.n_heads, query.head_dim});
    const View out(output, {query.n_queries, query.n_heads, query.head_dim});
    const View out_lse(lse, {query.n_queries, query.n_heads});
    if (bits_ > 0) {
      const Codes& codes = codes_[m];
      const CodedMemoryPart part{
          .entries = {.keys = entries(keys_[m]), .values = entries(values_[m])},
          .codes = {.bits = bits_,
                    .codes = codes.codes.data<std::byte>(),
                    .factors = codes.factors.data<BFloat16>(),
                    .mean = codes.mean.data<float>(),
                    .rotation = codes.rotation.data<float>()}};
      return CodedMemoryAttention(gpu_, {.queries = queries,
                                         .parts = {&part, 1},
                                         .n_candidates = 128,
                                         .top_k = kTopK,
                                         .scale = query.scale,
                                         .output = out,
                                         .lse = out_lse});
    }
    if (!is_dense_) {
      const MemoryPart part{.keys = entries(keys_[m]), .values = entries(values_[m])};
      return MemoryAttention(gpu_, {.queries = queries,
                                    .parts = {&part, 1},
                                    .top_k = kTopK,
                                    .scale = query.scale,
                                    .output = out,
                                    .lse = out_lse});
    }
    const auto tokens_first = [&](const Buffer& buffer) {
      return ConstView(DType::kBF16, buffer.data<void>(),
                       {n_tokens_, query.n_kv_heads, query.head_dim})
          .WithStrides({query.head_dim, n_tokens_ * query.head_dim, 1});
    };
    return Attention(gpu_, {.queries = queries,
                            .keys = tokens_first(keys_[m]),
                            .values = tokens_first(values_[m]),
                            .scale = query.scale,
                            .causal = false,
                            .output = out,
                            .lse = out_lse});
  }
  int64_t bytes() const { return bytes_; }

 private:
  struct Codes {
    Buffer codes, factors, mean, rotation;
  };
  void Encode(int64_t n_kv_heads, int64_t head_dim, const Buffer& keys) {
    const KeyCoder coder(bits_, head_dim);
    const int64_t code_bytes = n_kv_heads * coder.code_bytes(n_tokens_);
    const int64_t factor_bytes =
        n_kv_heads * coder.n_factors(n_tokens_) * static_cast<int64_t>(sizeof(BFloat16));
    bytes_ += code_bytes + factor_bytes;
    Codes codes;
    codes.codes = *gpu_.Allocate(static_cast<size_t>(code_bytes));
    codes.factors = *gpu_.Allocate(static_cast<size_t>(factor_bytes));
    codes.mean = *gpu_.Allocate(static_cast<size_t>(n_kv_heads * head_dim) * sizeof(float));
    codes.rotation =
        *gpu_.UploadConstant(coder.rotation().data(), coder.rotation().size() * sizeof(float));
    CHECK_OK(EncodeKeys(
        gpu_, {.coder = &coder,
               .rotation = codes.rotation.data<float>(),
               .keys = {DType::kBF16, keys.data<void>(), {n_kv_heads, n_tokens_, head_dim}},
               .codes = codes.codes.data<std::byte>(),
               .factors = codes.factors.data<BFloat16>(),
               .mean = codes.mean.data<float>()}));
    codes_.push_back(std::move(codes));
  }

  cuda::CudaDevice& gpu_;
  const int64_t n_tokens_;
  const bool is_dense_;
  const int bits_;
  std::vector<Codes> codes_;           // [n_mem_layers], where there are bits
  std::vector<Buffer> keys_, values_;  // [n_mem_layers]: [n_kv_heads, n_tokens, head_dim]
  int64_t bytes_ = 0;
};

struct Options {
  std::string model, adapter, mode = "exact";
  std::vector<int> mem_layers;
  int bits = 4;
  int64_t tokens = 1000000, prompt = 300, steps = 60;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    char* const value = argv[i + 1];
    if (name == "--model") {
      options.model = value;
    } else if (name == "--adapter") {
      options.adapter = value;
    } else if (name == "--mode") {
      options.mode = value;
    } else if (name == "--bits") {
      options.bits = std::atoi(value);
    } else if (name == "--tokens") {
      options.tokens = std::atoll(value);
    } else if (name == "--prompt") {
      options.prompt = std::max<int64_t>(1, std::atoll(value));
    } else if (name == "--steps") {
      options.steps = std::max<int64_t>(1, std::atoll(value));
    } else if (name == "--mem-layers") {
      for (char* at = value; *at != '\0';) {
        options.mem_layers.push_back(static_cast<int>(std::strtol(at, &at, 10)));
        if (*at == ',') ++at;
      }
    } else {
      std::fprintf(stderr, "%s: unknown\n", name.c_str());
      std::exit(1);
    }
  }
  const bool has_mode =
      options.mode == "exact" || options.mode == "approximate" || options.mode == "dense";
  const bool has_bits = options.bits == 2 || options.bits == 4 || options.bits == 8;
  if (options.model.empty() || !has_mode || !has_bits) {
    std::fprintf(stderr,
                 "want --model FILE, --mode exact, approximate or dense, --bits 2, 4 or 8\n");
    std::exit(1);
  }
  return options;
}

int64_t SizeOf(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return static_cast<int64_t>(std::filesystem::file_size(path));
  }
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() == ".safetensors") bytes += SizeOf(entry.path());
  }
  return bytes;
}

// The median of a step's milliseconds after a prompt.
double StepMilliseconds(model::Transformer& model, model::MemorySource* memory,
                        const Options& options) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kWarm = 5;
  model::LocalContext context;
  model::Workspace workspace;
  std::vector<int32_t> ids(static_cast<size_t>(options.prompt));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>((977 * i + 13) % static_cast<size_t>(model.config().vocab_size));
  }
  int32_t next = 0;
  const auto run = [&](std::span<const int32_t> some) {
    const model::Sequence sequence{
        .ids = some, .context = &context, .memory = memory, .best_id = &next};
    CHECK_OK(model.Run(*model.device(), {&sequence, 1}, &workspace));
  };
  run(ids);
  std::vector<double> times;
  for (int64_t step = 0; step < options.steps + kWarm; ++step) {
    const int32_t id = next;
    const Clock::time_point begin = Clock::now();
    run({&id, 1});
    const std::chrono::duration<double, std::milli> taken = Clock::now() - begin;
    if (step >= kWarm) times.push_back(taken.count());
  }
  return Median(std::move(times));
}

void Run(const Options& options) {
  auto device = Device::Create("cuda", 0, "auto");
  CHECK_OK(device.status());
  cuda::CudaDevice& gpu = cuda::AsCuda(**device);
  const double copy = CopyBytesPerSecond(gpu, 9);
  model::LoadOptions load{.model = options.model, .mem_layers = options.mem_layers};
  load.needs_tokenizer = false;
  if (!options.adapter.empty()) load.adapter = options.adapter;
  auto model = model::Transformer::Load(&gpu, load);
  CHECK_OK(model.status());
  (*model)->PrepareSteps();
  const int64_t weights = SizeOf(options.model);
  std::fprintf(stderr, "%s, copy %.2f TB/s, %s\n%12s %10s %10s %8s\n", GpuName().c_str(),
               copy / 1e12, options.model.c_str(), "memory", "ms/token", "read ms", "ratio");
  std::printf(
      "{\"bench\": \"gpu_token\", \"gpu\": \"%s\", \"copy_bytes_per_second\": %.4g, "
      "\"weight_bytes\": %lld, \"mode\": \"%s\", \"rows\": [",
      GpuName().c_str(), copy, static_cast<long long>(weights), options.mode.c_str());
  const auto report = [&](const char* name, double ms, int64_t memory_bytes, bool is_last) {
    const double read_ms = static_cast<double>(weights + memory_bytes) / copy * 1e3;
    std::fprintf(stderr, "%12s %10.4f %10.4f %8.3f\n", name, ms, read_ms, ms / read_ms);
    std::printf(
        "{\"memory\": \"%s\", \"memory_bytes\": %lld, \"ms_per_token\": %.5f, "
        "\"read_ms\": %.5f, \"ratio\": %.4f}%s",
        name, static_cast<long long>(memory_bytes), ms, read_ms, ms / read_ms, is_last ? "" : ", ");
  };
  report("alone", StepMilliseconds(**model, nullptr, options), 0, (*model)->n_mem_layers() == 0);
  if ((*model)->n_mem_layers() > 0) {
    RandomMemory memory(gpu, **model, options.tokens, options.mode == "dense",
                        options.mode == "approximate" ? options.bits : 0);
    const double ms = StepMilliseconds(**model, &memory, options);
    report(std::to_string(options.tokens).c_str(), ms, memory.bytes(), true);
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) { fovea::compute::Run(fovea::compute::Parse(argc, argv)); }
