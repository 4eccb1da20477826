// A whole token of a model with memory layers on a GPU, against reading its weights and the keys of
// its memory (dense: and the values) once at the speed of a copy on the same GPU, in the same run.
//
//   build/cuda-release/bin/gpu_token --model FILE [--adapter DIR] [--mem-layers 9,15,21]
//       [--mode exact|approximate|dense] [--bits 4] [--tokens 1000000] [--prompt 300] [--steps 60]
//       [--values device|pinned] [--value-tokens N] [--recorded whole|pieces|none]
//
// The memory is random, as large as --tokens in each memory layer, and lies on the GPU; exact: the
// top 16 of each head are attended to; approximate: the same of 128 that codes of the keys name,
// and the codes are what is read. A step is what an answer does for a token: it runs the model on
// the last token and gives the next one's id to the host. Time is the host's, the median over the
// steps. "weights": the size of the model's files. "alone": the same without the memory, against
// the weights. A JSON object goes to stdout, a table to stderr.
//
// --values pinned leaves the values in pinned host memory, from which those of the kept keys are
// read. Where a machine has no room for the values of all tokens, --value-tokens N makes those of N
// tokens a layer, and the memory consists of parts of N tokens that have keys and codes of their
// own and share the values: as many rows are read for a token, of less memory.
//
// --recorded pieces: the memory is one in whose search the host takes part (FAISS's indexes, values
// in the store), so that what lies between its layers is recorded piece by piece; none: nothing is.
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

struct Options {
  std::string model, adapter, mode = "exact";
  std::vector<int> mem_layers;
  int bits = 4;
  int64_t tokens = 1000000, prompt = 300, steps = 60;
  int64_t value_tokens = 0;  // 0: as many as `tokens`, after Parse
  bool pins_values = false;
  std::string recorded = "whole";
};

class RandomMemory final : public model::MemorySource {
 public:
  RandomMemory(cuda::CudaDevice& gpu, const model::Transformer& model, const Options& options)
      : gpu_(gpu),
        recorded_(options.recorded),
        n_value_tokens_(options.value_tokens),
        is_dense_(options.mode == "dense"),
        bits_(options.mode == "approximate" ? options.bits : 0) {
    const model::ModelConfig& c = model.config();
    const int64_t token_numbers = c.n_kv_heads * c.head_dim;
    for (int64_t m = 0; m < model.n_mem_layers(); ++m) {
      Layer& layer = layers_.emplace_back();
      const auto seed = [&](int64_t half) { return static_cast<uint64_t>(2 * m + half) << 40; };
      layer.values = RandomValues(seed(2), n_value_tokens_ * token_numbers, options.pins_values);
      for (int64_t begin = 0; begin < options.tokens; begin += n_value_tokens_) {
        const int64_t n = std::min(n_value_tokens_, options.tokens - begin);
        const uint64_t first = static_cast<uint64_t>(begin * token_numbers);
        Part& part = layer.parts.emplace_back();
        part.n_tokens = n;
        part.keys = RandomEntries(gpu, seed(1) + first, n * token_numbers);
        if (bits_ > 0) {
          Encode(c.n_kv_heads, c.head_dim, &part);
        } else {
          bytes_ +=
              n * token_numbers * static_cast<int64_t>(sizeof(BFloat16)) * (is_dense_ ? 2 : 1);
        }
      }
    }
  }

  model::MemoryPlace place() const override { return model::MemoryPlace::kDevice; }
  absl::Status BeginStep(uint64_t* recording_id) override {
    // Another one each time: no step is as the one before.
    *recording_id = recorded_ == "whole" ? 1 : recorded_ == "pieces" ? 0 : ++n_steps_;
    return absl::OkStatus();
  }
  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override {
    const Layer& layer = layers_[static_cast<size_t>(query.memory_layer)];
    const ConstView queries(query.queries, {query.n_queries, query.n_heads, query.head_dim});
    const View out(output, {query.n_queries, query.n_heads, query.head_dim});
    const View out_lse(lse, {query.n_queries, query.n_heads});
    if (is_dense_) {
      const auto tokens_first = [&](const Buffer& buffer) {
        return ConstView(DType::kBF16, buffer.data<void>(),
                         {n_value_tokens_, query.n_kv_heads, query.head_dim})
            .WithStrides({query.head_dim, n_value_tokens_ * query.head_dim, 1});
      };
      return Attention(gpu_, {.queries = queries,
                              .keys = tokens_first(layer.parts[0].keys),
                              .values = tokens_first(layer.values),
                              .scale = query.scale,
                              .causal = false,
                              .output = out,
                              .lse = out_lse});
    }
    std::vector<MemoryPart> entries;
    std::vector<CodedMemoryPart> coded;
    for (const Part& part : layer.parts) {
      entries.push_back(
          {.keys = {DType::kBF16,
                    part.keys.data<void>(),
                    {query.n_kv_heads, part.n_tokens, query.head_dim}},
           .values = ConstView(DType::kBF16, layer.values.data<void>(),
                               {query.n_kv_heads, part.n_tokens, query.head_dim})
                         .WithStrides({n_value_tokens_ * query.head_dim, query.head_dim, 1})});
      if (bits_ == 0) continue;
      coded.push_back({.entries = entries.back(),
                       .codes = {.bits = bits_,
                                 .codes = part.codes.data<std::byte>(),
                                 .factors = part.factors.data<BFloat16>(),
                                 .mean = part.mean.data<float>(),
                                 .rotation = rotation_.data<float>()}});
    }
    if (bits_ > 0) {
      return CodedMemoryAttention(gpu_, {.queries = queries,
                                         .parts = coded,
                                         .n_candidates = 128,
                                         .top_k = kTopK,
                                         .scale = query.scale,
                                         .output = out,
                                         .lse = out_lse});
    }
    return MemoryAttention(gpu_, {.queries = queries,
                                  .parts = entries,
                                  .top_k = kTopK,
                                  .scale = query.scale,
                                  .output = out,
                                  .lse = out_lse});
  }
  int64_t bytes() const { return bytes_; }

 private:
  // Tokens with keys, and codes where there are bits, of their own.
  struct Part {
    int64_t n_tokens = 0;
    Buffer keys;  // [n_kv_heads, n_tokens, head_dim]
    Buffer codes, factors, mean;
  };
  struct Layer {
    std::vector<Part> parts;  // the first n_tokens of `values` are those of each
    Buffer values;            // [n_kv_heads, n_value_tokens, head_dim]
  };
  Buffer RandomValues(uint64_t seed, int64_t n, bool is_pinned) {
    if (!is_pinned) return RandomEntries(gpu_, seed, n);
    auto values = gpu_.AllocatePinned(static_cast<size_t>(n) * sizeof(BFloat16));
    CHECK_OK(values.status());
    FillNormal(gpu_, seed, n, values->data<__nv_bfloat16>());
    return *std::move(values);
  }
  void Encode(int64_t n_kv_heads, int64_t head_dim, Part* part) {
    const KeyCoder coder(bits_, head_dim);
    if (rotation_.size_bytes() == 0) {
      rotation_ =
          *gpu_.UploadConstant(coder.rotation().data(), coder.rotation().size() * sizeof(float));
    }
    const int64_t code_bytes = n_kv_heads * coder.code_bytes(part->n_tokens);
    const int64_t factor_bytes =
        n_kv_heads * coder.n_factors(part->n_tokens) * static_cast<int64_t>(sizeof(BFloat16));
    bytes_ += code_bytes + factor_bytes;
    const auto allocate = [&](int64_t n_bytes) {
      auto buffer = gpu_.Allocate(static_cast<size_t>(n_bytes));
      CHECK_OK(buffer.status());
      return *std::move(buffer);
    };
    part->codes = allocate(code_bytes);
    part->factors = allocate(factor_bytes);
    part->mean = allocate(n_kv_heads * head_dim * static_cast<int64_t>(sizeof(float)));
    CHECK_OK(EncodeKeys(
        gpu_,
        {.coder = &coder,
         .rotation = rotation_.data<float>(),
         .keys = {DType::kBF16, part->keys.data<void>(), {n_kv_heads, part->n_tokens, head_dim}},
         .codes = part->codes.data<std::byte>(),
         .factors = part->factors.data<BFloat16>(),
         .mean = part->mean.data<float>()}));
  }

  cuda::CudaDevice& gpu_;
  const std::string recorded_;
  uint64_t n_steps_ = 0;
  const int64_t n_value_tokens_;
  const bool is_dense_;
  const int bits_;  // of codes; 0: the keys are read
  Buffer rotation_;
  std::vector<Layer> layers_;  // [n_mem_layers]
  int64_t bytes_ = 0;          // that a token reads
};

Options Parse(int argc, char** argv) {
  Options options;
  bool has_place = true;
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
    } else if (name == "--values") {
      options.pins_values = std::strcmp(value, "pinned") == 0;
      has_place = options.pins_values || std::strcmp(value, "device") == 0;
    } else if (name == "--recorded") {
      options.recorded = value;
    } else if (name == "--value-tokens") {
      options.value_tokens = std::atoll(value);
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
  if (options.value_tokens <= 0 || options.value_tokens > options.tokens) {
    options.value_tokens = options.tokens;
  }
  const bool is_dense = options.mode == "dense";
  const bool has_mode = options.mode == "exact" || options.mode == "approximate" || is_dense;
  has_place = has_place && (options.recorded == "whole" || options.recorded == "pieces" ||
                            options.recorded == "none");
  const bool has_bits = options.bits == 2 || options.bits == 4 || options.bits == 8;
  if (options.model.empty() || !has_mode || !has_bits || !has_place) {
    std::fprintf(stderr,
                 "want --model FILE, --mode exact, approximate or dense, --bits 2, 4 or 8, "
                 "--values device or pinned, --recorded whole, pieces or none\n");
    std::exit(1);
  }
  if (is_dense && (options.pins_values || options.value_tokens < options.tokens)) {
    std::fprintf(stderr, "--mode dense reads the values of all tokens on the GPU\n");
    std::exit(1);
  }
  const int64_t n_parts = (options.tokens + options.value_tokens - 1) / options.value_tokens;
  if (options.tokens <= 0 || n_parts > kMaxMemoryParts) {
    std::fprintf(stderr, "want 1 to %d times --value-tokens, not %lld\n", kMaxMemoryParts,
                 static_cast<long long>(n_parts));
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

// The median of a step's milliseconds after a prompt; *last_id: of the tokens, each of which
// follows from those before.
double StepMilliseconds(model::Transformer& model, model::MemorySource* memory,
                        const Options& options, int32_t* last_id) {
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
  *last_id = next;
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
  const char* const place = options.pins_values ? "pinned" : "device";
  std::fprintf(stderr,
               "%s, copy %.2f TB/s, %s, values of %lld tokens a layer: %s, recorded: %s\n"
               "%12s %10s %10s %8s\n",
               GpuName().c_str(), copy / 1e12, options.model.c_str(),
               static_cast<long long>(options.value_tokens), place, options.recorded.c_str(),
               "memory", "ms/token", "read ms", "ratio");
  std::printf(
      "{\"bench\": \"gpu_token\", \"gpu\": \"%s\", \"copy_bytes_per_second\": %.4g, "
      "\"weight_bytes\": %lld, \"mode\": \"%s\", \"bits\": %d, \"values\": \"%s\", "
      "\"value_tokens\": %lld, \"recorded\": \"%s\", \"rows\": [",
      GpuName().c_str(), copy, static_cast<long long>(weights), options.mode.c_str(),
      options.mode == "approximate" ? options.bits : 0, place,
      static_cast<long long>(options.value_tokens), options.recorded.c_str());
  int32_t last_id = 0;
  const auto report = [&](const char* name, double ms, int64_t memory_bytes, bool is_last) {
    const double read_ms = static_cast<double>(weights + memory_bytes) / copy * 1e3;
    std::fprintf(stderr, "%12s %10.4f %10.4f %8.3f\n", name, ms, read_ms, ms / read_ms);
    std::printf(
        "{\"memory\": \"%s\", \"memory_bytes\": %lld, \"ms_per_token\": %.5f, "
        "\"read_ms\": %.5f, \"ratio\": %.4f, \"last_id\": %d}%s",
        name, static_cast<long long>(memory_bytes), ms, read_ms, ms / read_ms, last_id,
        is_last ? "" : ", ");
  };
  const double alone_ms = StepMilliseconds(**model, nullptr, options, &last_id);
  report("alone", alone_ms, 0, (*model)->n_mem_layers() == 0);
  if ((*model)->n_mem_layers() > 0) {
    RandomMemory memory(gpu, **model, options);
    const double ms = StepMilliseconds(**model, &memory, options, &last_id);
    report(std::to_string(options.tokens).c_str(), ms, memory.bytes(), true);
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::compute

int main(int argc, char** argv) { fovea::compute::Run(fovea::compute::Parse(argc, argv)); }
