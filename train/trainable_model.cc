#include "train/trainable_model.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/strings.h"
#include "compute/dtype.h"
#include "compute/rope.h"
#include "model/weights/fot_config.h"
#include "train/fused_ops.h"
#include "train/memory_attention.h"

namespace fovea::train {
namespace {

using torch::Tensor;

torch::TensorOptions Options(torch::Dtype type, torch::Device device) {
  return torch::TensorOptions().dtype(type).device(device);
}

Tensor FromFloats(const std::vector<float>& values, std::vector<int64_t> shape,
                  torch::Device device) {
  return torch::from_blob(const_cast<float*>(values.data()), shape, torch::kFloat32)
      .clone()
      .to(device);
}

}  // namespace

// What Load does, and what it needs for it.
class TrainableLoader {
 public:
  // `checkpoint` null: random values.
  TrainableLoader(const model::Checkpoint* checkpoint, const model::Adapter* start,
                  TrainableModel* model)
      : checkpoint_(checkpoint), start_(start), model_(*model) {}

  absl::Status Load() {
    const model::ModelConfig& c = model_.config_;
    const TrainableOptions& options = model_.options_;
    if (options.mem_layers.empty()) {
      return absl::InvalidArgumentError("no memory layers are named: there is nothing to train");
    }
    RETURN_IF_ERROR(
        model::CheckMemLayers({options.mem_layers.begin(), options.mem_layers.end()}, c.n_layers));
    if (options.update == TrainableOptions::Update::kLora && options.lora_rank < 1) {
      return absl::InvalidArgumentError(StrCat("rank ", options.lora_rank, ", want at least 1"));
    }
    if (options.update == TrainableOptions::Update::kLora && options.lora_rank > c.hidden_size) {
      return absl::InvalidArgumentError(
          StrCat("rank ", options.lora_rank, ", want at most the model's width, ", c.hidden_size,
                 ": from there on matrices are trained whole (full)"));
    }
    generator_ = at::detail::createCPUGenerator(options.seed);
    if (start_ != nullptr) TakeRanks();
    ASSIGN_OR_RETURN(model_.embedding_, Table("model.embed_tokens.weight"));
    ASSIGN_OR_RETURN(model_.final_norm_, Vector("model.norm.weight", c.hidden_size));
    model_.lm_head_ = model_.embedding_;
    if (!c.tie_word_embeddings) {
      ASSIGN_OR_RETURN(model_.lm_head_, Table("lm_head.weight"));
    }
    for (int64_t l = 0; l < c.n_layers; ++l) {
      RETURN_IF_ERROR(LoadLayer(l, &model_.layers_.emplace_back()));
    }
    if (options.trains_key_gain) {
      for (const int layer : options.mem_layers) {
        std::vector<float> gain(static_cast<size_t>(c.n_kv_heads), 1.0f);
        if (start_ != nullptr && !start_->MemoryKeyGain(layer).empty()) {
          gain = start_->MemoryKeyGain(layer);
        }
        for (float& g : gain) g = std::log(g);
        model_.gains_.push_back(Parameter(StrCat("fot.layers.", layer, ".memory_key_gain"),
                                          FromFloats(gain, {c.n_kv_heads}, options.device),
                                          /*is_key_gain=*/true));
      }
    }
    MakeRotations();
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Tensor> Floats(const std::string& name, const std::vector<int64_t>& shape) {
    if (checkpoint_ == nullptr) return Random(name, shape);
    ASSIGN_OR_RETURN(const model::Tensor* tensor, checkpoint_->Find(name, shape));
    const int64_t columns = shape.back();
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    Tensor values = torch::empty(shape, torch::kFloat32);
    const size_t row_bytes = rows == 0 ? 0 : tensor->size_bytes / static_cast<size_t>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      compute::DequantizeRow(tensor->dtype, tensor->data + static_cast<size_t>(row) * row_bytes,
                             columns, values.data_ptr<float>() + row * columns);
    }
    return values;
  }
  Tensor Random(const std::string& name, const std::vector<int64_t>& shape) {
    if (shape.size() == 1) return torch::ones(shape, torch::kFloat32);  // a norm
    constexpr double kDeviation = 0.02;
    const bool ends_half = name.ends_with(".o_proj.weight") || name.ends_with(".down_proj.weight");
    const double deviation =
        ends_half ? kDeviation / std::sqrt(2.0 * static_cast<double>(model_.config_.n_layers))
                  : kDeviation;
    return torch::randn(shape, generator_) * deviation;
  }
  // The embedding or the lm_head.
  absl::StatusOr<Tensor> Table(const std::string& name) {
    const model::ModelConfig& c = model_.config_;
    if (!IsScratch()) return Matrix(name, c.vocab_size, c.hidden_size);
    ASSIGN_OR_RETURN(const Tensor values, Floats(name, {c.vocab_size, c.hidden_size}));
    return Parameter(name, values.to(model_.options_.device));
  }
  bool IsScratch() const { return model_.options_.update == TrainableOptions::Update::kScratch; }
  absl::StatusOr<Tensor> Vector(const std::string& name, int64_t size) {
    ASSIGN_OR_RETURN(const Tensor values, Floats(name, {size}));
    return values.to(model_.options_.device);
  }
  absl::StatusOr<Tensor> Matrix(const std::string& name, int64_t rows, int64_t columns) {
    ASSIGN_OR_RETURN(const Tensor values, Floats(name, {rows, columns}));
    return values.to(Options(model_.options_.type, model_.options_.device));
  }

  Tensor Parameter(std::string name, const Tensor& value, bool is_key_gain = false,
                   bool is_norm = false) {
    Tensor parameter = value.detach().clone().requires_grad_();
    model_.parameters_.push_back({std::move(name), parameter, is_key_gain, is_norm});
    return parameter;
  }

  // Those of the adapter that training goes on from.
  void TakeRanks() {
    for (int64_t l = 0; l < model_.config_.n_layers; ++l) {
      const model::LoraTensors* lora =
          start_->Find(StrCat("model.layers.", l, ".self_attn.q_proj"));
      if (lora == nullptr) continue;
      model_.options_.lora_rank = lora->rank;
      model_.options_.lora_alpha = lora->scale * static_cast<double>(lora->rank);
      return;
    }
  }

  absl::Status LoadModule(const std::string& name, int64_t out, int64_t in,
                          TrainableModel::Module* module) {
    const TrainableOptions& options = model_.options_;
    const model::LoraTensors* lora = start_ != nullptr ? start_->Find(name) : nullptr;
    if (options.update == TrainableOptions::Update::kFull || IsScratch()) {
      ASSIGN_OR_RETURN(Tensor full, Floats(name + ".weight", {out, in}));
      if (lora != nullptr) {
        full = full + lora->scale * FromFloats(lora->b, {out, lora->rank}, torch::kCPU)
                                        .matmul(FromFloats(lora->a, {lora->rank, in}, torch::kCPU));
      }
      module->full = Parameter(name + ".weight", full.to(options.device));
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(module->weight, Matrix(name + ".weight", out, in));
    const bool trains = options.update == TrainableOptions::Update::kLora;
    if (!trains && lora == nullptr) return absl::OkStatus();
    Tensor a, b;
    if (lora != nullptr) {
      a = FromFloats(lora->a, {lora->rank, in}, options.device);
      b = FromFloats(lora->b, {out, lora->rank}, options.device);
      module->scale = lora->scale;
    } else {
      a = (torch::randn({options.lora_rank, in}, generator_) / std::sqrt(static_cast<double>(in)))
              .to(options.device);
      b = torch::zeros({out, options.lora_rank}, Options(torch::kFloat32, options.device));
      module->scale = options.lora_alpha / static_cast<double>(options.lora_rank);
    }
    const std::string prefix = StrCat("base_model.model.", name);
    module->a = trains ? Parameter(prefix + ".lora_A.weight", a) : a;
    module->b = trains ? Parameter(prefix + ".lora_B.weight", b) : b;
    return absl::OkStatus();
  }

  absl::Status LoadLayer(int64_t l, TrainableModel::Layer* layer) {
    const model::ModelConfig& c = model_.config_;
    const std::string prefix = StrCat("model.layers.", l, ".");
    ASSIGN_OR_RETURN(layer->attention_norm,
                     Vector(prefix + "input_layernorm.weight", c.hidden_size));
    ASSIGN_OR_RETURN(layer->mlp_norm,
                     Vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
    const int64_t q = c.n_heads * c.head_dim;
    const int64_t kv = c.n_kv_heads * c.head_dim;
    const int64_t h = c.hidden_size;
    const int64_t m = c.intermediate_size;
    RETURN_IF_ERROR(LoadModule(prefix + "self_attn.q_proj", q, h, &layer->q));
    RETURN_IF_ERROR(LoadModule(prefix + "self_attn.k_proj", kv, h, &layer->k));
    RETURN_IF_ERROR(LoadModule(prefix + "self_attn.v_proj", kv, h, &layer->v));
    RETURN_IF_ERROR(LoadModule(prefix + "self_attn.o_proj", h, q, &layer->o));
    RETURN_IF_ERROR(LoadModule(prefix + "mlp.gate_proj", m, h, &layer->gate));
    RETURN_IF_ERROR(LoadModule(prefix + "mlp.up_proj", m, h, &layer->up));
    RETURN_IF_ERROR(LoadModule(prefix + "mlp.down_proj", h, m, &layer->down));
    if (c.qk_norm) RETURN_IF_ERROR(LoadQkNorm(l, prefix, layer));
    if (!c.attention_bias) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Tensor q_bias, Vector(prefix + "self_attn.q_proj.bias", q));
    ASSIGN_OR_RETURN(const Tensor k_bias, Vector(prefix + "self_attn.k_proj.bias", kv));
    ASSIGN_OR_RETURN(const Tensor v_bias, Vector(prefix + "self_attn.v_proj.bias", kv));
    layer->qkv_bias = torch::cat({q_bias, k_bias, v_bias}).to(model_.options_.type);
    return absl::OkStatus();
  }

  absl::Status LoadQkNorm(int64_t l, const std::string& prefix, TrainableModel::Layer* layer) {
    const model::ModelConfig& c = model_.config_;
    // Heads have a norm of √head_dim then, and scores are divided by that: the product of both
    // gains is the temperature's share of it.
    const bool is_memory_layer = model_.MemoryIndex(l) >= 0;
    const double gain = IsScratch() && is_memory_layer
                            ? std::sqrt(model_.options_.first_temperature /
                                        std::sqrt(static_cast<double>(c.head_dim)))
                            : 1.0;
    for (const auto& [part, norm] : {std::pair{"self_attn.q_norm.weight", &layer->q_norm},
                                     std::pair{"self_attn.k_norm.weight", &layer->k_norm}}) {
      ASSIGN_OR_RETURN(const Tensor values, Vector(prefix + part, c.head_dim));
      *norm = IsScratch() ? Parameter(prefix + part, values * gain, /*is_key_gain=*/false,
                                      /*is_norm=*/true)
                          : values;
    }
    return absl::OkStatus();
  }

  void MakeRotations() {
    const model::ModelConfig& c = model_.config_;
    std::vector<float> inverse =
        compute::RopeInverseFrequencies(c.head_dim, c.rope_theta, c.rope_scaling);
    for (size_t i = 0; i < c.rope_factors.size() && i < inverse.size(); ++i) {
      inverse[i] /= c.rope_factors[i];
    }
    const Tensor positions = torch::arange(c.max_position_embeddings, torch::kFloat32).unsqueeze(1);
    const Tensor angles = positions * FromFloats(inverse, {1, c.head_dim / 2}, torch::kCPU);
    model_.cos_ = angles.cos().to(model_.options_.device);
    model_.sin_ = angles.sin().to(model_.options_.device);
  }

  const model::Checkpoint* checkpoint_;  // null: random values
  const model::Adapter* start_;
  TrainableModel& model_;
  at::Generator generator_;
};

absl::StatusOr<std::unique_ptr<TrainableModel>> TrainableModel::Load(
    const model::Checkpoint& checkpoint, const model::Adapter* start,
    const TrainableOptions& options) {
  auto model = std::make_unique<TrainableModel>();
  model->config_ = checkpoint.config();
  model->options_ = options;
  RETURN_IF_ERROR(TrainableLoader(&checkpoint, start, model.get()).Load());
  return model;
}

absl::StatusOr<std::unique_ptr<TrainableModel>> TrainableModel::Create(
    const model::ModelConfig& config, const TrainableOptions& options) {
  FOVEA_CHECK(options.update == TrainableOptions::Update::kScratch && !config.attention_bias);
  auto model = std::make_unique<TrainableModel>();
  model->config_ = config;
  model->options_ = options;
  RETURN_IF_ERROR(TrainableLoader(nullptr, nullptr, model.get()).Load());
  return model;
}

Tensor TrainableModel::Composed(const Module& module) const {
  if (module.full.defined()) return module.full.to(options_.type);
  if (!module.a.defined()) return module.weight;
  return module.weight + (module.b.matmul(module.a) * module.scale).to(options_.type);
}

TrainableModel::Weights TrainableModel::Compose() const {
  Weights weights;
  for (const Layer& layer : layers_) {
    weights.push_back({torch::cat({Composed(layer.q), Composed(layer.k), Composed(layer.v)}),
                       Composed(layer.o), torch::cat({Composed(layer.gate), Composed(layer.up)}),
                       Composed(layer.down)});
  }
  return weights;
}

int64_t TrainableModel::MemoryIndex(int64_t layer) const {
  const auto found = std::find(options_.mem_layers.begin(), options_.mem_layers.end(), layer);
  return found == options_.mem_layers.end() ? -1 : found - options_.mem_layers.begin();
}

Tensor TrainableModel::KeyGain(size_t memory_layer) const {
  return gains_[memory_layer].exp().to(options_.type).view({1, config_.n_kv_heads, 1, 1});
}

ContextEntries TrainableModel::Encode(const Weights& weights, const Tensor& ids) const {
  ContextEntries entries;
  RunLayers(weights, ids, options_.mem_layers.back() + 1, nullptr, nullptr, &entries);
  return entries;
}

Tensor TrainableModel::Forward(const Weights& weights, const Tensor& ids, const SeenMemory* memory,
                               const MassProbe* probe) const {
  return RunLayers(weights, ids, config_.n_layers, memory, probe, nullptr);
}

Tensor TrainableModel::RunLayers(const Weights& weights, const Tensor& ids, int64_t n_layers,
                                 const SeenMemory* memory, const MassProbe* probe,
                                 ContextEntries* entries) const {
  const int64_t n = ids.size(0);
  const int64_t n_tokens = ids.size(1);
  const int64_t n_heads = config_.n_heads;
  const int64_t n_kv_heads = config_.n_kv_heads;
  Tensor x = torch::embedding(embedding_.to(options_.type), ids);
  Tensor delta;  // what a half of a layer adds to x
  Tensor h;
  const auto norm = [&](const Tensor& weight) {
    std::tie(x, h) = AddRmsNorm(x, delta, weight, config_.rms_norm_eps);
  };
  for (int64_t l = 0; l < n_layers; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const LayerWeights& w = weights[static_cast<size_t>(l)];
    const int64_t memory_layer = MemoryIndex(l);
    const auto m = static_cast<size_t>(memory_layer);
    norm(layer.attention_norm);
    Tensor qkv =
        torch::linear(h, w.qkv, layer.qkv_bias).view({n, n_tokens, n_heads + 2 * n_kv_heads, -1});
    if (layer.q_norm.defined()) qkv = NormalizeHeads(qkv, layer);
    const auto heads = [](const Tensor& of, int64_t begin, int64_t count) {
      return of.narrow(2, begin, count).transpose(1, 2);
    };
    Tensor stored;  // keys as a memory has them
    if (memory_layer >= 0) {
      stored = heads(qkv, n_heads, n_kv_heads);
      if (!gains_.empty()) stored = stored * KeyGain(m);
    }
    if (entries != nullptr && memory_layer >= 0) {
      entries->keys.push_back(stored);
      entries->values.push_back(heads(qkv, n_heads + n_kv_heads, n_kv_heads));
      if (l + 1 == n_layers) return Tensor();  // nothing is wanted of what comes after it
    }
    const bool rotates = options_.mem_positionals || memory_layer < 0;
    const std::vector<Tensor> parts =
        (rotates ? RotateHeads(qkv, n_heads + n_kv_heads, cos_, sin_) : qkv)
            .split_with_sizes({n_heads, n_kv_heads, n_kv_heads}, 2);
    MemoryAttentionArgs args{.queries = parts[0].transpose(1, 2),
                             .keys = parts[1].transpose(1, 2),
                             .values = parts[2].transpose(1, 2)};
    if (memory_layer >= 0 && memory != nullptr) {
      const bool is_own = memory->entries == nullptr;  // entries are contexts
      args.context_keys = is_own ? stored : memory->entries->keys[m];
      args.context_values = is_own ? args.values : memory->entries->values[m];
      args.seen = memory->seen;
      if (probe != nullptr) (*probe)(m, args.queries, args.context_keys, *memory->seen);
    }
    delta = torch::linear(AttendWithMemory(args).transpose(1, 2).reshape({n, n_tokens, -1}), w.o);
    norm(layer.mlp_norm);
    delta = torch::linear(SwiGlu(torch::linear(h, w.gate_up)), w.down);
  }
  norm(final_norm_);
  return h;
}

Tensor TrainableModel::NormalizeHeads(const Tensor& qkv, const Layer& layer) const {
  const std::vector<Tensor> parts =
      qkv.split_with_sizes({config_.n_heads, config_.n_kv_heads, config_.n_kv_heads}, 2);
  const auto normalized = [&](const Tensor& heads, const Tensor& gain) {
    return torch::rms_norm(heads.to(torch::kFloat32), {config_.head_dim}, gain,
                           config_.rms_norm_eps)
        .to(options_.type);
  };
  return torch::cat(
      {normalized(parts[0], layer.q_norm), normalized(parts[1], layer.k_norm), parts[2]}, 2);
}

Tensor TrainableModel::Logits(const Tensor& hidden) const {
  return torch::linear(hidden, lm_head_.to(options_.type));
}

std::vector<std::pair<std::string, Tensor>> TrainableModel::CheckpointTensors() const {
  torch::NoGradGuard guard;
  std::vector<std::pair<std::string, Tensor>> tensors;
  const auto add = [&](std::string name, const Tensor& value) {
    tensors.emplace_back(std::move(name), value.detach());
  };
  add("model.embed_tokens.weight", embedding_.to(options_.type));
  add("model.norm.weight", final_norm_);
  if (!config_.tie_word_embeddings) add("lm_head.weight", lm_head_.to(options_.type));
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const std::string prefix = StrCat("model.layers.", l, ".");
    add(prefix + "input_layernorm.weight", layer.attention_norm);
    add(prefix + "post_attention_layernorm.weight", layer.mlp_norm);
    for (const auto& [name, module] :
         {std::pair{"self_attn.q_proj", &layer.q}, std::pair{"self_attn.k_proj", &layer.k},
          std::pair{"self_attn.v_proj", &layer.v}, std::pair{"self_attn.o_proj", &layer.o},
          std::pair{"mlp.gate_proj", &layer.gate}, std::pair{"mlp.up_proj", &layer.up},
          std::pair{"mlp.down_proj", &layer.down}}) {
      add(StrCat(prefix, name, ".weight"), Composed(*module));
    }
    if (layer.q_norm.defined()) {
      add(prefix + "self_attn.q_norm.weight", layer.q_norm);
      add(prefix + "self_attn.k_norm.weight", layer.k_norm);
    }
    if (!layer.qkv_bias.defined()) continue;
    const std::vector<Tensor> biases = layer.qkv_bias.split_with_sizes(
        {config_.n_heads * config_.head_dim, config_.n_kv_heads * config_.head_dim,
         config_.n_kv_heads * config_.head_dim});
    add(prefix + "self_attn.q_proj.bias", biases[0]);
    add(prefix + "self_attn.k_proj.bias", biases[1]);
    add(prefix + "self_attn.v_proj.bias", biases[2]);
  }
  return tensors;
}

}  // namespace fovea::train
