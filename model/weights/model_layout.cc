#include "model/weights/model_layout.h"

#include <algorithm>
#include <cmath>

#include "model/weights/file_checks.h"

namespace fovea::model {
namespace {

absl::Status CheckSize(std::string_view name, int64_t value) {
  // Products of two sizes stay below 2^62.
  if (value >= 1 && value < (int64_t{1} << 31)) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(name, ": ", value, ", want 1 to 2147483647"));
}

absl::Status CheckPositive(std::string_view name, float value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(name, ": ", value, ", want a positive number"));
}

bool SaysNothingNew(std::string_view name, const ModelConfig& config) {
  return name == "rope_freqs.weight" ||  // read with the configuration
         name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rotary_emb.inv_freq") ||
         (name == "lm_head.weight" && config.tie_word_embeddings);
}

}  // namespace

absl::Status CheckModelConfig(const ModelConfig& config) {
  RETURN_IF_ERROR(CheckSize("vocab_size", config.vocab_size));
  RETURN_IF_ERROR(CheckSize("hidden_size", config.hidden_size));
  RETURN_IF_ERROR(CheckSize("intermediate_size", config.intermediate_size));
  RETURN_IF_ERROR(CheckSize("number of layers", config.n_layers));
  RETURN_IF_ERROR(CheckSize("number of attention heads", config.n_heads));
  RETURN_IF_ERROR(CheckSize("number of key-value heads", config.n_kv_heads));
  RETURN_IF_ERROR(CheckSize("head_dim", config.head_dim));
  RETURN_IF_ERROR(CheckSize("n_heads * head_dim", config.n_heads * config.head_dim));
  RETURN_IF_ERROR(CheckSize("context length", config.max_position_embeddings));
  if (config.n_heads % config.n_kv_heads != 0) {
    return absl::InvalidArgumentError(StrCat(config.n_heads, " attention heads are no multiple of ",
                                             config.n_kv_heads, " key-value heads"));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        StrCat("head_dim: ", config.head_dim, ", want an even number (rope rotates pairs)"));
  }
  RETURN_IF_ERROR(CheckPositive("rms_norm_eps", config.rms_norm_eps));
  RETURN_IF_ERROR(CheckPositive("rope_theta", config.rope_theta));
  const compute::RopeScaling& scaling = config.rope_scaling;
  RETURN_IF_ERROR(CheckPositive("rope scaling factor", scaling.llama3_factor));
  RETURN_IF_ERROR(CheckPositive("rope scaling factor", scaling.linear_factor));
  if (scaling.llama3_factor != 1.0f) {
    RETURN_IF_ERROR(CheckPositive("rope scaling low_freq_factor", scaling.low_freq_factor));
    RETURN_IF_ERROR(CheckSize("rope scaling original_max_position_embeddings",
                              scaling.original_max_position_embeddings));
    if (!(std::isfinite(scaling.high_freq_factor) &&
          scaling.high_freq_factor > scaling.low_freq_factor)) {
      return absl::InvalidArgumentError(
          StrCat("rope scaling high_freq_factor: ", scaling.high_freq_factor,
                 ", want more than low_freq_factor ", scaling.low_freq_factor));
    }
  }
  for (const float factor : config.rope_factors) {
    RETURN_IF_ERROR(CheckPositive("rope_freqs.weight", factor));
  }
  return absl::OkStatus();
}

std::vector<TensorLayout> ModelTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t q_size = config.n_heads * config.head_dim;
  const int64_t kv_size = config.n_kv_heads * config.head_dim;
  std::vector<TensorLayout> tensors = {
      {"model.embed_tokens.weight", "token_embd.weight", {config.vocab_size, hidden}},
      {"model.norm.weight", "output_norm.weight", {hidden}},
  };
  if (!config.tie_word_embeddings) {
    tensors.push_back({"lm_head.weight", "output.weight", {config.vocab_size, hidden}});
  }
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto add = [&](std::string_view name, std::string_view gguf_name,
                         std::vector<int64_t> shape) {
      tensors.push_back({StrCat("model.layers.", layer, ".", name),
                         StrCat("blk.", layer, ".", gguf_name), std::move(shape)});
    };
    add("input_layernorm.weight", "attn_norm.weight", {hidden});
    add("self_attn.q_proj.weight", "attn_q.weight", {q_size, hidden});
    add("self_attn.k_proj.weight", "attn_k.weight", {kv_size, hidden});
    add("self_attn.v_proj.weight", "attn_v.weight", {kv_size, hidden});
    add("self_attn.o_proj.weight", "attn_output.weight", {hidden, q_size});
    if (config.attention_bias) {
      add("self_attn.q_proj.bias", "attn_q.bias", {q_size});
      add("self_attn.k_proj.bias", "attn_k.bias", {kv_size});
      add("self_attn.v_proj.bias", "attn_v.bias", {kv_size});
    }
    if (config.qk_norm) {
      add("self_attn.q_norm.weight", "attn_q_norm.weight", {config.head_dim});
      add("self_attn.k_norm.weight", "attn_k_norm.weight", {config.head_dim});
    }
    add("post_attention_layernorm.weight", "ffn_norm.weight", {hidden});
    add("mlp.gate_proj.weight", "ffn_gate.weight", {inner, hidden});
    add("mlp.up_proj.weight", "ffn_up.weight", {inner, hidden});
    add("mlp.down_proj.weight", "ffn_down.weight", {hidden, inner});
  }
  return tensors;
}

absl::Status CheckShape(std::string_view stored_name, std::span<const int64_t> shape,
                        std::span<const int64_t> want) {
  if (std::equal(shape.begin(), shape.end(), want.begin(), want.end())) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(stored_name, ": shape ", ShapeString(shape), ", want ", ShapeString(want)));
}

int64_t ContextWithinWindow(int64_t max_position_embeddings, int64_t sliding_window) {
  return sliding_window > 0 ? std::min(max_position_embeddings, sliding_window)
                            : max_position_embeddings;
}

absl::StatusOr<std::vector<Tensor>> TakeTensors(const ModelConfig& config, TensorTable table,
                                                TensorNames names) {
  // Before a list is made for a number of layers that a damaged file may have made up.
  if (config.n_layers > static_cast<int64_t>(table.size()) / 9) {
    return absl::InvalidArgumentError(StrCat(config.n_layers, " layers of at least 9 tensors, but ",
                                             table.size(),
                                             " tensors: parts of the model are "
                                             "missing"));
  }
  std::vector<Tensor> tensors;
  for (TensorLayout& layout : ModelTensors(config)) {
    const std::string& stored_name = names == TensorNames::kGguf ? layout.gguf_name : layout.name;
    const auto it = table.find(stored_name);
    if (it == table.end()) {
      return absl::InvalidArgumentError(
          StrCat("tensor ", stored_name, " is missing, want shape ", ShapeString(layout.shape)));
    }
    const StoredTensor& stored = *it->second;
    RETURN_IF_ERROR(CheckShape(stored_name, stored.shape, layout.shape));
    table.erase(it);
    tensors.push_back({std::move(layout.name), stored.dtype, std::move(layout.shape), stored.data,
                       stored.size_bytes});
  }
  for (const auto& [name, tensor] : table) {
    if (SaysNothingNew(name, config)) continue;
    return absl::UnimplementedError(StrCat("tensor ", Printable(name), " is none of a ",
                                           config.architecture,
                                           " model; fovea would compute something else"));
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  return tensors;
}

}  // namespace fovea::model
