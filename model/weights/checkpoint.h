// A model's files behind one view: configuration, tensors under the Hugging Face LLaMA names in
// rotate-half order, and what its tokenizer is made of. GGUF files and safetensors folders look
// the same from here.
//
//   ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(path));
//   ASSIGN_OR_RETURN(const Tensor* q, checkpoint->Find("model.layers.0.self_attn.q_proj.weight"));
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "compute/dtype.h"
#include "model/config.h"
#include "model/tokenizer/tokenizer_spec.h"

namespace fovea::model {

struct Tensor {
  std::string name;  // "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", …
  compute::DType dtype = compute::DType::kF32;
  std::vector<int64_t> shape;       // row-major, outermost first: [out_features, in_features]
  const std::byte* data = nullptr;  // rows as stored; mapped or owned by the checkpoint; may be
                                    // unaligned
  size_t size_bytes = 0;
};

// Immutable and thread-safe. Tensors live as long as the object.
class Checkpoint {
 public:
  // A GGUF file (v2, v3), a .safetensors or PyTorch .bin file beside its config.json, or a folder
  // with config.json and one or more of either (safetensors first). All tensors of the architecture
  // are there and have the shapes that config() implies. NotFound; InvalidArgument for a damaged,
  // truncated or contradictory file (names the tensor, its shape and the wanted one); Unimplemented
  // names an architecture or element type that fovea does not know.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& path);
  virtual ~Checkpoint() = default;

  const ModelConfig& config() const { return config_; }
  const MemoryConfig& memory_config() const { return memory_config_; }  // its own; may be empty
  const TokenizerSpec& tokenizer_spec() const { return tokenizer_spec_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::filesystem::path& path() const { return path_; }

  // Null when absent.
  const Tensor* FindOrNull(std::string_view name) const;
  // NotFound, or InvalidArgument when the shape is another ("name: shape [8,4], want [4,4]").
  absl::StatusOr<const Tensor*> Find(std::string_view name,
                                     const std::vector<int64_t>& shape) const;

  // XXH3-128 over names, types, shapes and bytes of all tensors, the configuration and the
  // tokenizer. Computed on the first call (about 10 GB/s on mapped, cached files), then kept.
  Hash128 Fingerprint() const;

 protected:
  Checkpoint() = default;

  ModelConfig config_;
  MemoryConfig memory_config_;
  TokenizerSpec tokenizer_spec_;
  std::vector<Tensor> tensors_;  // sorted by name
  std::filesystem::path path_;

 private:
  mutable std::once_flag fingerprint_once_;
  mutable Hash128 fingerprint_;
};

}  // namespace fovea::model
