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

absl::Status CheckTokenId(std::string_view name, int64_t id, int64_t vocab_size) {
  if (id >= -1 && id < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(name, ": ", id, " is not in the vocabulary of ", vocab_size));
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
                         std::vector<int64_t> shape, int64_t n_rope_heads = 0) {
      tensors.push_back({StrCat("model.layers.", layer, ".", name),
                         StrCat("blk.", layer, ".", gguf_name), std::move(shape), n_rope_heads});
    };
    add("input_layernorm.weight", "attn_norm.weight", {hidden});
    add("self_attn.q_proj.weight", "attn_q.weight", {q_size, hidden}, config.n_heads);
    add("self_attn.k_proj.weight", "attn_k.weight", {kv_size, hidden}, config.n_kv_heads);
    add("self_attn.v_proj.weight", "attn_v.weight", {kv_size, hidden});
    add("self_attn.o_proj.weight", "attn_output.weight", {hidden, q_size});
    if (config.attention_bias) {
      add("self_attn.q_proj.bias", "attn_q.bias", {q_size}, config.n_heads);
      add("self_attn.k_proj.bias", "attn_k.bias", {kv_size}, config.n_kv_heads);
      add("self_attn.v_proj.bias", "attn_v.bias", {kv_size});
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

void AddEndTokens(TokenizerSpec* spec) {
  static constexpr std::string_view kEndTokens[] = {"<|im_end|>",     "<|eot_id|>", "<|eom_id|>",
                                                    "<|end|>",        "</s>",       "<|endoftext|>",
                                                    "<|end_of_text|>"};
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    if (spec->types[id] != TokenType::kControl) continue;
    if (std::find(std::begin(kEndTokens), std::end(kEndTokens), spec->tokens[id]) ==
        std::end(kEndTokens)) {
      continue;
    }
    const auto token = static_cast<int32_t>(id);
    std::vector<int32_t>& ends = spec->extra_end_ids;
    if (token != spec->eos_id && std::find(ends.begin(), ends.end(), token) == ends.end()) {
      ends.push_back(token);
    }
  }
}

absl::Status CheckTokenizerSpec(const TokenizerSpec& spec, int64_t vocab_size) {
  if (spec.kind == TokenizerSpec::Kind::kNone) return absl::OkStatus();
  const auto n_tokens = static_cast<int64_t>(spec.tokens.size());
  if (n_tokens == 0 && spec.sentencepiece_model.empty()) {
    return absl::InvalidArgumentError("the tokenizer has no tokens");
  }
  if (n_tokens > vocab_size) {
    return absl::InvalidArgumentError(StrCat(
        "the tokenizer has ", n_tokens, " tokens, the embedding table only ", vocab_size, " rows"));
  }
  if (spec.types.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(
        StrCat("the tokenizer has ", n_tokens, " tokens and ", spec.types.size(), " token types"));
  }
  if (!spec.scores.empty() && spec.scores.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(
        StrCat("the tokenizer has ", n_tokens, " tokens and ", spec.scores.size(), " scores"));
  }
  RETURN_IF_ERROR(CheckTokenId("bos token", spec.bos_id, vocab_size));
  RETURN_IF_ERROR(CheckTokenId("eos token", spec.eos_id, vocab_size));
  for (const int32_t id : spec.extra_end_ids) {
    RETURN_IF_ERROR(CheckTokenId("end token", id, vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace fovea::model
