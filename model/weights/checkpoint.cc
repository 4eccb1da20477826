#include "model/weights/checkpoint.h"

#include <algorithm>

#include "base/file.h"
#include "model/weights/field_hasher.h"
#include "model/weights/gguf_checkpoint.h"
#include "model/weights/hugging_face_checkpoint.h"
#include "model/weights/model_layout.h"

namespace fovea::model {
namespace {

void AddConfig(const ModelConfig& config, FieldHasher* hasher) {
  hasher->Add(config.architecture);
  hasher->Add(config.vocab_size);
  hasher->Add(config.hidden_size);
  hasher->Add(config.intermediate_size);
  hasher->Add(config.n_layers);
  hasher->Add(config.n_heads);
  hasher->Add(config.n_kv_heads);
  hasher->Add(config.head_dim);
  hasher->Add(config.max_position_embeddings);
  hasher->Add(config.rms_norm_eps);
  hasher->Add(config.rope_theta);
  hasher->Add(config.rope_scaling.llama3_factor);
  hasher->Add(config.rope_scaling.low_freq_factor);
  hasher->Add(config.rope_scaling.high_freq_factor);
  hasher->Add(config.rope_scaling.original_max_position_embeddings);
  hasher->Add(config.rope_scaling.linear_factor);
  hasher->Add(config.rope_factors);
  hasher->Add(int64_t{config.tie_word_embeddings});
  hasher->Add(int64_t{config.attention_bias});
}

void AddMemoryConfig(const MemoryConfig& memory, FieldHasher* hasher) {
  hasher->Add(static_cast<int64_t>(memory.mem_layers.size()));
  for (const int layer : memory.mem_layers) hasher->Add(int64_t{layer});
  hasher->Add(int64_t{memory.mem_positionals});
}

void AddTokenizer(const TokenizerSpec& spec, FieldHasher* hasher) {
  hasher->Add(static_cast<int64_t>(spec.kind));
  hasher->Add(spec.tokens);
  hasher->Add(spec.scores);
  hasher->Add(static_cast<int64_t>(spec.types.size()));
  for (const TokenType type : spec.types) hasher->Add(static_cast<int64_t>(type));
  hasher->Add(spec.merges);
  hasher->Add(spec.pre_tokenizer);
  hasher->Add(spec.sentencepiece_model);
  hasher->Add(int64_t{spec.ignore_merges});
  hasher->Add(int64_t{spec.bos_id});
  hasher->Add(int64_t{spec.eos_id});
  hasher->Add(int64_t{spec.add_bos});
  hasher->Add(int64_t{spec.add_eos});
  hasher->Add(int64_t{spec.add_space_prefix});
}

absl::StatusOr<bool> StartsWithGgufMagic(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  return file->bytes().starts_with("GGUF");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return OpenHuggingFace(path);
  // What a file is shows in its first bytes, whatever it is called.
  ASSIGN_OR_RETURN(const bool is_gguf, StartsWithGgufMagic(path));
  if (is_gguf || path.extension() == ".gguf") return OpenGguf(path);
  if (path.extension() == ".safetensors" || path.extension() == ".bin")
    return OpenHuggingFace(path);
  return absl::InvalidArgumentError(
      StrCat(path,
             ": no model; give a .gguf file, a .safetensors or .bin file with config.json "
             "beside it, or a folder with both"));
}

const Tensor* Checkpoint::FindOrNull(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const Tensor& tensor, std::string_view n) { return tensor.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

absl::StatusOr<const Tensor*> Checkpoint::Find(std::string_view name,
                                               const std::vector<int64_t>& shape) const {
  const Tensor* tensor = FindOrNull(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(StrCat(path_, ": tensor ", name, " is missing"));
  }
  const absl::Status status = CheckShape(name, tensor->shape, shape);
  if (!status.ok()) return Annotate(status, path_.native());
  return tensor;
}

Hash128 Checkpoint::Fingerprint() const {
  std::call_once(fingerprint_once_, [this] {
    FieldHasher hasher;
    AddConfig(config_, &hasher);
    AddMemoryConfig(memory_config_, &hasher);
    AddTokenizer(tokenizer_spec_, &hasher);
    for (const Tensor& tensor : tensors_) {
      hasher.Add(tensor.name);
      hasher.Add(compute::Traits(tensor.dtype).name);
      hasher.Add(tensor.shape);
      hasher.Add(std::string_view(reinterpret_cast<const char*>(tensor.data), tensor.size_bytes));
    }
    fingerprint_ = hasher.Finish();
  });
  return fingerprint_;
}

}  // namespace fovea::model
