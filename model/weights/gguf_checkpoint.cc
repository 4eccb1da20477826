#include "model/weights/gguf_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/file.h"
#include "model/weights/file_checks.h"
#include "model/weights/gguf_file.h"
#include "model/weights/model_layout.h"
#include "model/weights/tokenizer_checks.h"

namespace fovea::model {
namespace {

// The value, or `fallback` where the key is absent; other errors stay errors.
template <typename T>
absl::StatusOr<T> Or(absl::StatusOr<T> value, T fallback) {
  if (absl::IsNotFound(value.status())) return fallback;
  return value;
}

// Sizes that may be given per layer; fovea's models have the same one in all of them.
absl::StatusOr<int64_t> SameInAllLayers(const GgufFile& gguf, std::string_view key) {
  if (!gguf.IsArray(key)) return gguf.Integer(key);
  ASSIGN_OR_RETURN(const std::vector<int64_t> values, gguf.Integers(key));
  if (values.empty() || std::any_of(values.begin(), values.end(),
                                    [&](int64_t value) { return value != values[0]; })) {
    return absl::UnimplementedError(StrCat("metadata ", key, " differs from layer to layer"));
  }
  return values[0];
}

absl::Status ReadRopeScaling(const GgufFile& gguf, const std::string& arch, ModelConfig* config) {
  // As llama.cpp: a factor without a type means linear scaling; scale_linear is its old name.
  ASSIGN_OR_RETURN(const std::string type,
                   Or(gguf.String(arch + ".rope.scaling.type"), std::string("linear")));
  const std::string factor_key = gguf.Has(arch + ".rope.scaling.factor")
                                     ? arch + ".rope.scaling.factor"
                                     : arch + ".rope.scale_linear";
  ASSIGN_OR_RETURN(const double factor, Or(gguf.Number(factor_key), 0.0));
  if (type == "none" || factor == 0.0) return absl::OkStatus();
  if (type == "linear") {
    config->rope_scaling.linear_factor = static_cast<float>(factor);
    return absl::OkStatus();
  }
  if (type == "llama3") {
    compute::RopeScaling& scaling = config->rope_scaling;
    scaling.llama3_factor = static_cast<float>(factor);
    ASSIGN_OR_RETURN(const double low,
                     Or(gguf.Number(arch + ".rope.scaling.low_freq_factor"), 1.0));
    ASSIGN_OR_RETURN(const double high,
                     Or(gguf.Number(arch + ".rope.scaling.high_freq_factor"), 4.0));
    ASSIGN_OR_RETURN(
        scaling.original_max_position_embeddings,
        Or(gguf.Integer(arch + ".rope.scaling.original_context_length"), int64_t{8192}));
    scaling.low_freq_factor = static_cast<float>(low);
    scaling.high_freq_factor = static_cast<float>(high);
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      StrCat("rope scaling '", Printable(type), "'; fovea knows linear and llama3"));
}

// rope_freqs.weight, a divisor for each inverse frequency.
absl::Status ReadRopeFactors(const StoredTensor& tensor, ModelConfig* config) {
  const std::vector<int64_t> want = {config->head_dim / 2};
  RETURN_IF_ERROR(CheckShape("rope_freqs.weight", tensor.shape, want));
  if (tensor.dtype != compute::DType::kF32) {
    return absl::InvalidArgumentError("rope_freqs.weight: not of type F32");
  }
  config->rope_factors.resize(config->head_dim / 2);
  std::memcpy(config->rope_factors.data(), tensor.data, tensor.size_bytes);
  // Factors of one everywhere are no scaling.
  if (std::all_of(config->rope_factors.begin(), config->rope_factors.end(),
                  [](float factor) { return factor == 1.0f; })) {
    config->rope_factors.clear();
  }
  return absl::OkStatus();
}

absl::Status ReadConfig(const GgufFile& gguf, const TensorTable& table, ModelConfig* config) {
  ASSIGN_OR_RETURN(const std::string arch, gguf.String("general.architecture"));
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3") {
    return absl::UnimplementedError(StrCat("architecture '", Printable(arch),
                                           "'; fovea reads llama (with mistral), qwen2 and qwen3"));
  }
  ASSIGN_OR_RETURN(const int64_t n_parts, Or(gguf.Integer("split.count"), int64_t{1}));
  if (n_parts > 1) {
    return absl::UnimplementedError(StrCat("one of ", n_parts,
                                           " parts of a model; put them together with "
                                           "`llama-gguf-split --merge`"));
  }
  ASSIGN_OR_RETURN(const int64_t n_experts, Or(gguf.Integer(arch + ".expert_count"), int64_t{0}));
  if (n_experts > 0) {
    return absl::UnimplementedError(StrCat("a mixture of ", n_experts, " experts"));
  }
  config->architecture = arch;
  ASSIGN_OR_RETURN(config->name, Or(gguf.String("general.name"), std::string()));
  ASSIGN_OR_RETURN(config->hidden_size, gguf.Integer(arch + ".embedding_length"));
  ASSIGN_OR_RETURN(config->n_layers, gguf.Integer(arch + ".block_count"));
  ASSIGN_OR_RETURN(config->intermediate_size, SameInAllLayers(gguf, arch + ".feed_forward_length"));
  ASSIGN_OR_RETURN(config->n_heads, SameInAllLayers(gguf, arch + ".attention.head_count"));
  ASSIGN_OR_RETURN(config->n_kv_heads,
                   Or(SameInAllLayers(gguf, arch + ".attention.head_count_kv"), config->n_heads));
  ASSIGN_OR_RETURN(const int64_t context_length, gguf.Integer(arch + ".context_length"));
  ASSIGN_OR_RETURN(const int64_t sliding_window,
                   Or(gguf.Integer(arch + ".attention.sliding_window"), int64_t{0}));
  config->max_position_embeddings = ContextWithinWindow(context_length, sliding_window);
  if (config->n_heads < 1) {
    return absl::InvalidArgumentError(StrCat(arch, ".attention.head_count: ", config->n_heads));
  }
  ASSIGN_OR_RETURN(config->head_dim, Or(gguf.Integer(arch + ".attention.key_length"),
                                        config->hidden_size / config->n_heads));
  ASSIGN_OR_RETURN(const int64_t value_length,
                   Or(gguf.Integer(arch + ".attention.value_length"), config->head_dim));
  ASSIGN_OR_RETURN(const int64_t rope_dimensions,
                   Or(gguf.Integer(arch + ".rope.dimension_count"), config->head_dim));
  if (value_length != config->head_dim || rope_dimensions != config->head_dim) {
    return absl::UnimplementedError(
        StrCat("keys of ", config->head_dim, " dimensions with values of ", value_length,
               " and rope over ", rope_dimensions, "; fovea wants the same for all three"));
  }
  ASSIGN_OR_RETURN(const double eps, gguf.Number(arch + ".attention.layer_norm_rms_epsilon"));
  config->rms_norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(const double theta, Or(gguf.Number(arch + ".rope.freq_base"), 10000.0));
  config->rope_theta = static_cast<float>(theta);
  RETURN_IF_ERROR(ReadRopeScaling(gguf, arch, config));

  // The embedding table itself says how large the vocabulary is.
  const auto embeddings = table.find("token_embd.weight");
  if (embeddings == table.end()) {
    return absl::InvalidArgumentError("tensor token_embd.weight is missing");
  }
  config->vocab_size = embeddings->second->shape[0];
  config->tie_word_embeddings = !table.contains("output.weight");
  config->attention_bias = arch == "qwen2" || table.contains("blk.0.attn_q.bias");
  config->qk_norm = arch == "qwen3";
  RETURN_IF_ERROR(CheckModelConfig(*config));
  if (const auto it = table.find("rope_freqs.weight"); it != table.end()) {
    RETURN_IF_ERROR(ReadRopeFactors(*it->second, config));
    RETURN_IF_ERROR(CheckModelConfig(*config));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> PreTokenizer(const GgufFile& gguf) {
  ASSIGN_OR_RETURN(const std::string pre,
                   Or(gguf.String("tokenizer.ggml.pre"), std::string("default")));
  if (pre == "default" || pre == "gpt-2" || pre == "gpt2") return "gpt2";
  if (pre == "smollm") return "smollm";
  if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3") return "llama3";
  if (pre == "qwen2" || pre == "deepseek-r1-qwen") return "qwen2";
  return absl::UnimplementedError(StrCat("tokenizer.ggml.pre '", Printable(pre),
                                         "'; fovea knows gpt-2, smollm, llama-bpe and qwen2"));
}

absl::StatusOr<int32_t> TokenId(const GgufFile& gguf, std::string_view key) {
  ASSIGN_OR_RETURN(const int64_t id, Or(gguf.Integer(key), int64_t{-1}));
  // llama.cpp writes −1 as an unsigned number.
  if (id == int64_t{0xffffffff}) return -1;
  if (id < -1 || id > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, ": ", id, " is no token"));
  }
  return static_cast<int32_t>(id);
}

absl::Status ReadTokenizer(const GgufFile& gguf, TokenizerSpec* spec) {
  ASSIGN_OR_RETURN(const std::string model,
                   Or(gguf.String("tokenizer.ggml.model"), std::string("none")));
  if (model == "none" || model == "no_vocab") return absl::OkStatus();
  if (model == "gpt2") {
    spec->kind = TokenizerSpec::Kind::kByteLevelBpe;
    ASSIGN_OR_RETURN(spec->pre_tokenizer, PreTokenizer(gguf));
    ASSIGN_OR_RETURN(spec->merges, gguf.Strings("tokenizer.ggml.merges"));
    spec->ignore_merges = spec->pre_tokenizer == "llama3";
    spec->add_space_prefix = false;
  } else if (model == "llama") {
    spec->kind = TokenizerSpec::Kind::kSentencePiece;
    ASSIGN_OR_RETURN(spec->scores, gguf.Numbers("tokenizer.ggml.scores"));
    spec->add_space_prefix = true;
  } else {
    return absl::UnimplementedError(StrCat("tokenizer.ggml.model '", Printable(model),
                                           "'; fovea knows gpt2 (byte-level BPE) and llama "
                                           "(SentencePiece)"));
  }
  ASSIGN_OR_RETURN(spec->tokens, gguf.Strings("tokenizer.ggml.tokens"));
  spec->types.assign(spec->tokens.size(), TokenType::kNormal);
  if (gguf.Has("tokenizer.ggml.token_type")) {
    ASSIGN_OR_RETURN(const std::vector<int64_t> types, gguf.Integers("tokenizer.ggml.token_type"));
    spec->types.resize(types.size());
    for (size_t i = 0; i < types.size(); ++i) {
      if (types[i] < 1 || types[i] > 6) {
        return absl::InvalidArgumentError(
            StrCat("metadata tokenizer.ggml.token_type[", i, "]: ", types[i], ", want 1 to 6"));
      }
      spec->types[i] = static_cast<TokenType>(types[i]);
    }
  }
  ASSIGN_OR_RETURN(spec->bos_id, TokenId(gguf, "tokenizer.ggml.bos_token_id"));
  ASSIGN_OR_RETURN(spec->eos_id, TokenId(gguf, "tokenizer.ggml.eos_token_id"));
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const int32_t id, TokenId(gguf, key));
    AddEndToken(id, spec);
  }
  // Where the file is silent, llama.cpp's defaults.
  const bool default_bos = model == "llama" || spec->pre_tokenizer == "llama3";
  ASSIGN_OR_RETURN(spec->add_bos, Or(gguf.Bool("tokenizer.ggml.add_bos_token"), default_bos));
  ASSIGN_OR_RETURN(spec->add_eos, Or(gguf.Bool("tokenizer.ggml.add_eos_token"), false));
  ASSIGN_OR_RETURN(spec->add_space_prefix,
                   Or(gguf.Bool("tokenizer.ggml.add_space_prefix"), spec->add_space_prefix));
  ASSIGN_OR_RETURN(spec->chat_template, Or(gguf.String("tokenizer.chat_template"), std::string()));
  return absl::OkStatus();
}

// llama.cpp's conversion of architecture "llama" stores the rows of a head of q and k in the order
// of interleaved rope: stored row 2i+s is rotate-half's row s·head_dim/2 + i. This is the way back,
// for `n_heads` heads of `head_dim` rows.
std::unique_ptr<std::byte[]> UnpermuteRows(const std::byte* stored, int64_t n_heads,
                                           int64_t head_dim, size_t row_bytes) {
  // Sizes were checked: this is as large as a tensor in the file.
  auto rows = std::make_unique_for_overwrite<std::byte[]>(n_heads * head_dim * row_bytes);
  const int64_t half = head_dim / 2;
  for (int64_t head = 0; head < n_heads; ++head) {
    for (int64_t i = 0; i < head_dim; ++i) {
      const int64_t stored_row = head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
      std::memcpy(rows.get() + (head * head_dim + i) * row_bytes, stored + stored_row * row_bytes,
                  row_bytes);
    }
  }
  return rows;
}

class GgufCheckpoint : public Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& path) {
    auto checkpoint = std::make_unique<GgufCheckpoint>();
    checkpoint->path_ = path;
    ASSIGN_OR_RETURN(checkpoint->file_, MappedFile::Open(path));
    const absl::Status status = checkpoint->Read();
    if (!status.ok()) return Annotate(status, path.native());
    return checkpoint;
  }

 private:
  absl::Status Read() {
    ASSIGN_OR_RETURN(const GgufFile gguf, GgufFile::Parse(file_->bytes()));
    TensorTable table;
    for (const StoredTensor& tensor : gguf.tensors()) table.emplace(tensor.name, &tensor);
    absl::Status status = ReadConfig(gguf, table, &config_);
    // A key or tensor that must be there makes the file a damaged one, not an absent one.
    if (absl::IsNotFound(status)) status = absl::InvalidArgumentError(status.message());
    RETURN_IF_ERROR(status);
    status = ReadTokenizer(gguf, &tokenizer_spec_);
    if (absl::IsNotFound(status)) status = absl::InvalidArgumentError(status.message());
    RETURN_IF_ERROR(status);
    RETURN_IF_ERROR(CheckTokenizerSpec(tokenizer_spec_, config_.vocab_size));
    AddKnownEndTokens(&tokenizer_spec_);
    ASSIGN_OR_RETURN(tensors_, TakeTensors(config_, std::move(table), TensorNames::kGguf));
    if (config_.architecture == "llama") UnpermuteQueriesAndKeys();
    return absl::OkStatus();
  }

  // Architecture "llama" alone is stored in the order of interleaved rope.
  void UnpermuteQueriesAndKeys() {
    for (Tensor& tensor : tensors_) {
      int64_t n_heads;
      if (tensor.name.find(".self_attn.q_proj.") != std::string::npos) {
        n_heads = config_.n_heads;
      } else if (tensor.name.find(".self_attn.k_proj.") != std::string::npos) {
        n_heads = config_.n_kv_heads;
      } else {
        continue;
      }
      owned_.push_back(UnpermuteRows(tensor.data, n_heads, config_.head_dim,
                                     tensor.size_bytes / tensor.shape[0]));
      tensor.data = owned_.back().get();
    }
  }

  std::unique_ptr<MappedFile> file_;
  std::vector<std::unique_ptr<std::byte[]>> owned_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::filesystem::path& path) {
  return GgufCheckpoint::Open(path);
}

}  // namespace fovea::model
