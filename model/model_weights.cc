#include "model/model_weights.h"

#include <algorithm>
#include <limits>
#include <map>
#include <span>
#include <utility>

#include "compute/rope.h"

namespace fovea::model {
namespace {

using compute::Buffer;
using compute::ConstView;
using compute::Device;
using compute::Linear;

// Weights up to this size may have a copy in a faster form beside them (compute/linear.h). Of
// larger ones the mapped file is all that a machine may have room for, and a whole copy would not
// be made anyway: Device::packed_weights().
constexpr size_t kMaxCopiedWeightBytes = size_t{4} << 30;

}  // namespace

// What Load does, and what it needs for it.
class WeightLoader {
 public:
  WeightLoader(Device& device, const Checkpoint& checkpoint, const Adapter* adapter,
               ModelWeights* weights)
      : device_(device),
        checkpoint_(checkpoint),
        adapter_(adapter),
        weights_(*weights),
        config_(weights->config_) {}

  absl::Status Load();

 private:
  // Numbers that were computed, or converted to float32.
  absl::StatusOr<ConstView> Upload(std::span<const float> numbers);
  // A vector of the checkpoint, as float32.
  absl::StatusOr<ConstView> Vector(const std::string& name, int64_t size);
  // A matrix of the checkpoint as it is stored; once, whoever asks.
  absl::StatusOr<ConstView> Matrix(const std::string& name, int64_t rows, int64_t columns);
  // A factor of the adapter.
  absl::StatusOr<ConstView> Factor(const std::vector<float>& numbers, int64_t rows,
                                   int64_t columns);
  absl::StatusOr<std::unique_ptr<Linear>> MakeLinear(const std::string& module,
                                                     int64_t out_features, int64_t in_features,
                                                     ConstView bias = {});
  absl::Status LoadLayer(int64_t l, LayerWeights* layer);

  Device& device_;
  const Checkpoint& checkpoint_;
  const Adapter* adapter_;
  ModelWeights& weights_;
  const ModelConfig& config_;
  bool keeps_copies_ = true;
  std::map<std::string, ConstView> matrices_;
};

absl::StatusOr<ConstView> WeightLoader::Upload(std::span<const float> numbers) {
  ASSIGN_OR_RETURN(Buffer buffer, device_.Allocate(numbers.size_bytes()));
  RETURN_IF_ERROR(device_.CopyFromHost(numbers.data(), numbers.size_bytes(), buffer.data<void>()));
  weights_.buffers_.push_back(std::move(buffer));
  return ConstView(weights_.buffers_.back().data<float>(), {static_cast<int64_t>(numbers.size())});
}

absl::StatusOr<ConstView> WeightLoader::Vector(const std::string& name, int64_t size) {
  ASSIGN_OR_RETURN(const Tensor* tensor, checkpoint_.Find(name, {size}));
  std::vector<float> values(static_cast<size_t>(size));
  compute::DequantizeRow(tensor->dtype, tensor->data, size, values.data());
  return Upload(values);
}

absl::StatusOr<ConstView> WeightLoader::Matrix(const std::string& name, int64_t rows,
                                               int64_t columns) {
  ASSIGN_OR_RETURN(const Tensor* tensor, checkpoint_.Find(name, {rows, columns}));
  if (const auto it = matrices_.find(tensor->name); it != matrices_.end()) return it->second;
  ASSIGN_OR_RETURN(Buffer buffer, device_.UploadConstant(tensor->data, tensor->size_bytes));
  weights_.buffers_.push_back(std::move(buffer));
  const ConstView view(tensor->dtype, weights_.buffers_.back().data<void>(), {rows, columns});
  matrices_.emplace(tensor->name, view);
  return view;
}

absl::StatusOr<ConstView> WeightLoader::Factor(const std::vector<float>& numbers, int64_t rows,
                                               int64_t columns) {
  ASSIGN_OR_RETURN(Buffer buffer,
                   device_.UploadConstant(numbers.data(), numbers.size() * sizeof(float)));
  weights_.buffers_.push_back(std::move(buffer));
  return ConstView(weights_.buffers_.back().data<float>(), {rows, columns});
}

absl::StatusOr<std::unique_ptr<Linear>> WeightLoader::MakeLinear(const std::string& module,
                                                                 int64_t out_features,
                                                                 int64_t in_features,
                                                                 ConstView bias) {
  compute::LinearWeights weights;
  weights.name = module + ".weight";
  ASSIGN_OR_RETURN(weights.weight, Matrix(weights.name, out_features, in_features));
  weights.bias = bias;
  // Many rows of logits are asked for to be compared, and one row is not affected.
  // A LongLLaMA is to give its reference's logits.
  weights.float32_only =
      out_features == config_.vocab_size || weights_.memory_.encoding == "reference";
  weights.keeps_copy = keeps_copies_;
  if (const LoraTensors* lora = adapter_ != nullptr ? adapter_->Find(module) : nullptr;
      lora != nullptr) {
    ASSIGN_OR_RETURN(weights.lora_a, Factor(lora->a, lora->rank, in_features));
    ASSIGN_OR_RETURN(weights.lora_b, Factor(lora->b, out_features, lora->rank));
    weights.lora_scale = lora->scale;
  }
  return Linear::Create(device_, weights);
}

absl::Status WeightLoader::LoadLayer(int64_t l, LayerWeights* layer) {
  const ModelConfig& c = config_;
  const int64_t q_size = c.n_heads * c.head_dim;
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  const std::string prefix = StrCat("model.layers.", l, ".");
  ASSIGN_OR_RETURN(layer->attention_norm, Vector(prefix + "input_layernorm.weight", c.hidden_size));
  ASSIGN_OR_RETURN(layer->mlp_norm,
                   Vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
  const int64_t sizes[3] = {q_size, kv_size, kv_size};
  const char* names[3] = {"q_proj", "k_proj", "v_proj"};
  std::unique_ptr<Linear>* projections[3] = {&layer->q, &layer->k, &layer->v};
  for (int i = 0; i < 3; ++i) {
    const std::string module = StrCat(prefix, "self_attn.", names[i]);
    ConstView bias;
    if (c.attention_bias) {
      ASSIGN_OR_RETURN(bias, Vector(module + ".bias", sizes[i]));
    }
    ASSIGN_OR_RETURN(*projections[i], MakeLinear(module, sizes[i], c.hidden_size, bias));
  }
  if (c.qk_norm) {
    ASSIGN_OR_RETURN(layer->q_norm, Vector(prefix + "self_attn.q_norm.weight", c.head_dim));
    ASSIGN_OR_RETURN(layer->k_norm, Vector(prefix + "self_attn.k_norm.weight", c.head_dim));
  }
  ASSIGN_OR_RETURN(layer->o, MakeLinear(prefix + "self_attn.o_proj", c.hidden_size, q_size));
  ASSIGN_OR_RETURN(layer->gate,
                   MakeLinear(prefix + "mlp.gate_proj", c.intermediate_size, c.hidden_size));
  ASSIGN_OR_RETURN(layer->up,
                   MakeLinear(prefix + "mlp.up_proj", c.intermediate_size, c.hidden_size));
  ASSIGN_OR_RETURN(layer->down,
                   MakeLinear(prefix + "mlp.down_proj", c.hidden_size, c.intermediate_size));
  return absl::OkStatus();
}

absl::Status WeightLoader::Load() {
  const ModelConfig& c = config_;
  size_t weight_bytes = 0;
  for (const Tensor& tensor : checkpoint_.tensors()) weight_bytes += tensor.size_bytes;
  keeps_copies_ = weight_bytes <= kMaxCopiedWeightBytes;
  weights_.layers_.resize(static_cast<size_t>(c.n_layers));
  for (int64_t l = 0; l < c.n_layers; ++l) {
    RETURN_IF_ERROR(LoadLayer(l, &weights_.layers_[static_cast<size_t>(l)]));
  }
  ASSIGN_OR_RETURN(weights_.embedding_,
                   Matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size));
  ASSIGN_OR_RETURN(weights_.final_norm_, Vector("model.norm.weight", c.hidden_size));
  ASSIGN_OR_RETURN(weights_.lm_head_,
                   MakeLinear(c.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
                              c.vocab_size, c.hidden_size));
  std::vector<float> frequencies =
      compute::RopeInverseFrequencies(c.head_dim, c.rope_theta, c.rope_scaling);
  for (size_t i = 0; i < c.rope_factors.size() && i < frequencies.size(); ++i) {
    frequencies[i] /= c.rope_factors[i];
  }
  ASSIGN_OR_RETURN(weights_.inverse_frequencies_, Upload(frequencies));
  for (int layer : weights_.memory_.mem_layers) {
    ConstView& gain = weights_.key_gains_.emplace_back();
    const std::vector<float> gains =
        adapter_ != nullptr ? adapter_->MemoryKeyGain(layer) : std::vector<float>();
    if (!gains.empty()) {
      ASSIGN_OR_RETURN(gain, Upload(gains));
    }
  }
  return device_.Synchronize();
}

absl::StatusOr<std::unique_ptr<const ModelWeights>> ModelWeights::Load(Device& device,
                                                                       const Checkpoint& checkpoint,
                                                                       const Adapter* adapter,
                                                                       MemoryConfig memory) {
  auto weights = std::make_unique<ModelWeights>();
  weights->config_ = checkpoint.config();
  weights->memory_ = std::move(memory);
  RETURN_IF_ERROR(WeightLoader(device, checkpoint, adapter, weights.get()).Load());
  return weights;
}

void ModelWeights::ForEachProduct(absl::FunctionRef<void(const compute::Linear&)> visit) const {
  for (const LayerWeights& layer : layers_) {
    for (const auto* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      visit(**linear);
    }
  }
  visit(*lm_head_);
}

void ModelWeights::PrepareSteps(Device& device) const {
  ForEachProduct([&](const compute::Linear& linear) { linear.PrepareSteps(device); });
}

int64_t ModelWeights::max_rows_as_alone() const {
  int64_t n_rows = std::numeric_limits<int64_t>::max();
  ForEachProduct([&](const compute::Linear& linear) {
    n_rows = std::min(n_rows, linear.max_rows_as_alone());
  });
  return n_rows;
}

int64_t ModelWeights::MemoryIndex(int64_t layer) const {
  const auto& layers = memory_.mem_layers;
  const auto it = std::find(layers.begin(), layers.end(), static_cast<int>(layer));
  return it == layers.end() ? -1 : it - layers.begin();
}

}  // namespace fovea::model
