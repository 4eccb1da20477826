// A LLaMA of one layer whose every weight is told apart: hidden size 8, two heads of 4, one
// key-value head, 12 inner units, 6 tokens.
#pragma once

#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "file_writers.h"

namespace fovea::model {

inline std::vector<float> Ramp(float first, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), first);
  return values;
}

inline NamedTensor RampTensor(std::string name, std::vector<int64_t> shape, float first) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return {std::move(name), std::move(shape), Ramp(first, n)};
}

// Hugging Face's names.
inline std::vector<NamedTensor> TinyTensors() {
  const std::string layer = "model.layers.0.";
  return {RampTensor("lm_head.weight", {6, 8}, 100),
          RampTensor("model.embed_tokens.weight", {6, 8}, 200),
          RampTensor(layer + "input_layernorm.weight", {8}, 300),
          RampTensor(layer + "mlp.down_proj.weight", {8, 12}, 400),
          RampTensor(layer + "mlp.gate_proj.weight", {12, 8}, 500),
          RampTensor(layer + "mlp.up_proj.weight", {12, 8}, 600),
          RampTensor(layer + "post_attention_layernorm.weight", {8}, 700),
          RampTensor(layer + "self_attn.k_proj.weight", {4, 8}, 800),
          RampTensor(layer + "self_attn.o_proj.weight", {8, 8}, 900),
          RampTensor(layer + "self_attn.q_proj.weight", {8, 8}, 1000),
          RampTensor(layer + "self_attn.v_proj.weight", {4, 8}, 1100),
          RampTensor("model.norm.weight", {8}, 1200)};
}

// What a Qwen3 has beside them.
inline std::vector<NamedTensor> TinyQkNorms() {
  return {RampTensor("model.layers.0.self_attn.k_norm.weight", {4}, 1300),
          RampTensor("model.layers.0.self_attn.q_norm.weight", {4}, 1400)};
}

// Hugging Face's name → GGUF's.
inline std::string GgufName(const std::string& name) {
  static const std::map<std::string, std::string> names = {
      {"lm_head.weight", "output.weight"},
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
      {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"},
      {"model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"},
      {"model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"},
      {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
      {"model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"},
      {"model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"},
      {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"},
      {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"},
      {"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"},
      {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"}};
  return names.at(name);
}

inline void AddTinyMetadata(const std::string& arch, GgufWriter* writer) {
  writer->String("general.architecture", arch);
  writer->U32(arch + ".block_count", 1);
  writer->U32(arch + ".context_length", 64);
  writer->U32(arch + ".embedding_length", 8);
  writer->U32(arch + ".feed_forward_length", 12);
  writer->U32(arch + ".attention.head_count", 2);
  writer->U32(arch + ".attention.head_count_kv", 1);
  writer->F32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
}

// The tensors as they are, in file order; rows of q and k are not shuffled.
inline void AddTinyTensors(GgufWriter* writer) {
  for (const NamedTensor& tensor : TinyTensors()) {
    writer->Tensor(GgufName(tensor.name), tensor.shape, 0, FloatBytes(tensor.values));
  }
}

inline constexpr char kTinyConfigJson[] =
    R"({"model_type": "llama", "vocab_size": 6, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-05})";

}  // namespace fovea::model
