#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>

#include "compute/attention.h"
#include "compute/embedding.h"
#include "compute/linear.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {
namespace {

using compute::Buffer;
using compute::Device;
using compute::Linear;
using compute::View;

// Sampled queries of a window for calibration: 4 of a window of 1,024 tokens cost 0.6% of its keys
// and values.
constexpr int64_t kSampleStride = 256;
int64_t SampleSize(int64_t n_tokens) { return (n_tokens + kSampleStride - 1) / kSampleStride; }
// The last token of each stride: it has seen the most.
int64_t SampledToken(int64_t s, int64_t n_tokens) {
  return std::min((s + 1) * kSampleStride, n_tokens) - 1;
}

// Weights up to this size may have a copy in a faster form beside them (compute/linear.h). Of
// larger ones the mapped file is all that a machine may have room for, and a whole copy would not
// be made anyway: Device::packed_weights().
constexpr size_t kMaxCopiedWeightBytes = size_t{4} << 30;

absl::Status NoMemoryLayers() {
  return absl::FailedPreconditionError(
      "the model has no memory layers: give an adapter (--adapter) or name layers");
}

struct Layer {
  std::vector<float> attention_norm;  // [hidden_size]
  std::vector<float> mlp_norm;        // [hidden_size]
  std::unique_ptr<Linear> q, k, v, o, gate, up, down;
  std::vector<std::vector<float>> biases;  // keeps q, k, v biases alive
};

class TransformerImpl final : public Transformer {
 public:
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(Device* device,
                                                           const LoadOptions& options);

  const ModelConfig& config() const override { return checkpoint_->config(); }
  const MemoryConfig& memory_config() const override { return memory_config_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  int64_t n_mem_layers() const override {
    return static_cast<int64_t>(memory_config_.mem_layers.size());
  }

  absl::StatusOr<std::vector<EncodedWindow>> Encode(std::span<const WindowTokens> windows) override;
  absl::Status Forward(std::span<const int32_t> ids, LocalContext* context, MemorySource* memory,
                       std::vector<float>* logits, bool all_logits) override;
  void PrepareSteps() override;
  MemoryEntries Entries(const LocalContext& context) const override;
  absl::StatusOr<EncodedWindow> EncodeAttending(std::span<const int32_t> ids,
                                                MemorySource* memory) override;
  compute::Device* device() const override { return device_; }

 private:
  // Activations of one call, [n_tokens, …] each; kept between calls.
  struct Workspace {
    Buffer x, normed, q, k, v, attention, gate, up, lse, memory_output, memory_lse;
  };

  // The layers 0 … n_layers − 1 of Forward.
  absl::Status RunLayers(std::span<const int32_t> ids, int64_t n_layers, LocalContext* context,
                         MemorySource* memory);
  // Null where the model has none and none is needed.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const Checkpoint& checkpoint,
                                                                  const LoadOptions& options);
  absl::Status LoadLayers();
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t size) const;
  absl::StatusOr<std::unique_ptr<Linear>> MakeLinear(const std::string& module,
                                                     int64_t out_features, int64_t in_features,
                                                     const float* bias) const;
  absl::Status Reserve(int64_t n_tokens);
  absl::Status Embed(std::span<const int32_t> ids, float* out);
  absl::Status Norm(const float* x, const std::vector<float>& weight, int64_t n_tokens, float* out);
  absl::Status Rotate(float* x, int64_t n_tokens, int64_t n_heads, int64_t first_position);
  View HeadsOf(float* x, int64_t n_tokens) const {
    return {x, {n_tokens, config().n_heads, config().head_dim}};
  }
  View KvHeadsOf(float* x, int64_t n_tokens) const {
    return {x, {n_tokens, config().n_kv_heads, config().head_dim}};
  }
  // x += MLP(norm(x)), the second half of a layer.
  absl::Status Mlp(const Layer& layer, int64_t n_tokens);
  // Index of layer `l` among the memory layers, −1 for others.
  int MemoryIndex(int64_t l) const;
  bool Rotates(int64_t l) const { return memory_config_.mem_positionals || MemoryIndex(l) < 0; }
  // Whether a context keeps a layer's keys (values) after the layer has run.
  static bool KeepsKeys(const LocalContext& context) { return !IsWindow(context); }
  bool KeepsValues(const LocalContext& context, int64_t l) const {
    return !IsWindow(context) || MemoryIndex(l) >= 0;
  }
  absl::Status GrowContext(int64_t n_tokens, LocalContext* context);
  // What goes to a memory, in its type: keys (before RoPE; the gain is applied here) or values of
  // n_tokens tokens.
  EntryVector MemoryKeys(int memory_layer, const float* keys, int64_t n_tokens) const;
  EntryVector MemoryValues(const float* values, int64_t n_tokens) const;

  Device* device_ = nullptr;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<Tokenizer> tokenizer_;
  MemoryConfig memory_config_;
  std::string fingerprint_;
  std::vector<Layer> layers_;
  std::vector<std::vector<float>> key_gains_;  // [n_mem_layers][n_kv_heads] or empty
  const Tensor* embedding_ = nullptr;
  std::vector<float> final_norm_;
  std::unique_ptr<Linear> lm_head_;
  bool keeps_copies_ = true;
  std::vector<float> inverse_frequencies_;
  Workspace work_;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> TransformerImpl::MakeTokenizer(
    const Checkpoint& checkpoint, const LoadOptions& options) {
  const TokenizerSpec& spec = checkpoint.tokenizer_spec();
  if (!options.needs_tokenizer && spec.kind == TokenizerSpec::Kind::kNone) return nullptr;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
  const int64_t n_rows = checkpoint.config().vocab_size;
  if (tokenizer.ok() && (*tokenizer)->vocab_size() > n_rows) {
    tokenizer = absl::InvalidArgumentError(StrCat("the tokenizer has ", (*tokenizer)->vocab_size(),
                                                  " tokens, the embedding table only ", n_rows,
                                                  " rows: it is another model's"));
  }
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), options.model.native());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Transformer>> TransformerImpl::Load(Device* device,
                                                                   const LoadOptions& options) {
  auto model = std::make_unique<TransformerImpl>();
  model->device_ = device;
  ASSIGN_OR_RETURN(model->checkpoint_, Checkpoint::Open(options.model));
  const ModelConfig& config = model->checkpoint_->config();
  // The fingerprint reads all weights, the tokenizer sorts its vocabulary, the layers are set up:
  // each takes about as long as the others for a small model, and all at once.
  const auto fingerprint =
      std::async(std::launch::async, [&] { return model->checkpoint_->Fingerprint(); });
  auto tokenizer =
      std::async(std::launch::async, [&] { return MakeTokenizer(*model->checkpoint_, options); });
  model->memory_config_ = model->checkpoint_->memory_config();
  if (options.adapter) {
    ASSIGN_OR_RETURN(model->adapter_, Adapter::Load(*options.adapter, config));
    if (!model->adapter_->memory_config().mem_layers.empty()) {
      model->memory_config_ = model->adapter_->memory_config();
    }
  }
  if (model->memory_config_.mem_layers.empty()) {
    model->memory_config_.mem_layers = options.mem_layers;
  }
  for (int layer : model->memory_config_.mem_layers) {
    if (layer < 0 || layer >= config.n_layers) {
      return absl::InvalidArgumentError(StrCat("memory layer ", layer,
                                               ": the model has layers 0 … ", config.n_layers - 1,
                                               "; name others"));
    }
  }
  std::sort(model->memory_config_.mem_layers.begin(), model->memory_config_.mem_layers.end());
  RETURN_IF_ERROR(model->LoadLayers());
  ASSIGN_OR_RETURN(model->tokenizer_, tokenizer.get());

  FastHasher hasher;
  fingerprint.wait();
  hasher.Update(model->checkpoint_->Fingerprint().ToHex());
  if (model->adapter_ != nullptr) hasher.Update(model->adapter_->Fingerprint().ToHex());
  hasher.Update(AsBytes(std::span<const int>(model->memory_config_.mem_layers)));
  hasher.Update(model->memory_config_.mem_positionals ? "rope" : "nope");
  model->fingerprint_ = hasher.Finish().ToHex();
  return model;
}

absl::StatusOr<std::vector<float>> TransformerImpl::Vector(const std::string& name,
                                                           int64_t size) const {
  ASSIGN_OR_RETURN(const Tensor* tensor, checkpoint_->Find(name, {size}));
  std::vector<float> values(static_cast<size_t>(size));
  compute::DequantizeRow(tensor->dtype, tensor->data, size, values.data());
  return values;
}

absl::StatusOr<std::unique_ptr<Linear>> TransformerImpl::MakeLinear(const std::string& module,
                                                                    int64_t out_features,
                                                                    int64_t in_features,
                                                                    const float* bias) const {
  const std::string name = module + ".weight";
  ASSIGN_OR_RETURN(const Tensor* tensor, checkpoint_->Find(name, {out_features, in_features}));
  compute::LinearWeights weights;
  weights.name = name;
  weights.weight = {tensor->dtype, tensor->data, {out_features, in_features}};
  if (bias != nullptr) weights.bias = {bias, {out_features}};
  // Many rows of logits are asked for to be compared, and one row is not affected.
  // A LongLLaMA is to give its reference's logits.
  weights.float32_only =
      out_features == config().vocab_size || memory_config_.encoding == "reference";
  weights.keeps_copy = keeps_copies_;
  if (const LoraTensors* lora = adapter_ ? adapter_->Find(module) : nullptr; lora != nullptr) {
    weights.lora_a = {lora->a.data(), {lora->rank, in_features}};
    weights.lora_b = {lora->b.data(), {out_features, lora->rank}};
    weights.lora_scale = lora->scale;
  }
  return Linear::Create(*device_, weights);
}

absl::Status TransformerImpl::LoadLayers() {
  const ModelConfig& c = config();
  const int64_t q_size = c.n_heads * c.head_dim;
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  size_t weight_bytes = 0;
  for (const Tensor& tensor : checkpoint_->tensors()) weight_bytes += tensor.size_bytes;
  keeps_copies_ = weight_bytes <= kMaxCopiedWeightBytes;
  layers_.resize(static_cast<size_t>(c.n_layers));
  for (int64_t l = 0; l < c.n_layers; ++l) {
    Layer& layer = layers_[static_cast<size_t>(l)];
    const std::string prefix = StrCat("model.layers.", l, ".");
    ASSIGN_OR_RETURN(layer.attention_norm,
                     Vector(prefix + "input_layernorm.weight", c.hidden_size));
    ASSIGN_OR_RETURN(layer.mlp_norm,
                     Vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
    layer.biases.resize(3);
    const int64_t sizes[3] = {q_size, kv_size, kv_size};
    const char* names[3] = {"q_proj", "k_proj", "v_proj"};
    std::unique_ptr<Linear>* projections[3] = {&layer.q, &layer.k, &layer.v};
    for (int i = 0; i < 3; ++i) {
      const std::string module = StrCat(prefix, "self_attn.", names[i]);
      if (c.attention_bias) {
        ASSIGN_OR_RETURN(layer.biases[i], Vector(module + ".bias", sizes[i]));
      }
      ASSIGN_OR_RETURN(*projections[i],
                       MakeLinear(module, sizes[i], c.hidden_size,
                                  c.attention_bias ? layer.biases[i].data() : nullptr));
    }
    ASSIGN_OR_RETURN(layer.o,
                     MakeLinear(prefix + "self_attn.o_proj", c.hidden_size, q_size, nullptr));
    ASSIGN_OR_RETURN(layer.gate, MakeLinear(prefix + "mlp.gate_proj", c.intermediate_size,
                                            c.hidden_size, nullptr));
    ASSIGN_OR_RETURN(
        layer.up, MakeLinear(prefix + "mlp.up_proj", c.intermediate_size, c.hidden_size, nullptr));
    ASSIGN_OR_RETURN(layer.down, MakeLinear(prefix + "mlp.down_proj", c.hidden_size,
                                            c.intermediate_size, nullptr));
  }
  ASSIGN_OR_RETURN(embedding_,
                   checkpoint_->Find("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}));
  ASSIGN_OR_RETURN(final_norm_, Vector("model.norm.weight", c.hidden_size));
  ASSIGN_OR_RETURN(lm_head_, MakeLinear(c.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
                                        c.vocab_size, c.hidden_size, nullptr));
  inverse_frequencies_ = compute::RopeInverseFrequencies(c.head_dim, c.rope_theta, c.rope_scaling);
  for (size_t i = 0; i < c.rope_factors.size() && i < inverse_frequencies_.size(); ++i) {
    inverse_frequencies_[i] /= c.rope_factors[i];
  }
  for (int layer : memory_config_.mem_layers) {
    key_gains_.push_back(adapter_ ? adapter_->MemoryKeyGain(layer) : std::vector<float>());
  }
  return absl::OkStatus();
}

void TransformerImpl::PrepareSteps() {
  for (const Layer& layer : layers_) {
    for (const auto* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      (*linear)->PrepareSteps(*device_);
    }
  }
  lm_head_->PrepareSteps(*device_);
}

int TransformerImpl::MemoryIndex(int64_t l) const {
  const auto& layers = memory_config_.mem_layers;
  const auto it = std::find(layers.begin(), layers.end(), static_cast<int>(l));
  return it == layers.end() ? -1 : static_cast<int>(it - layers.begin());
}

absl::Status TransformerImpl::Reserve(int64_t n_tokens) {
  const ModelConfig& c = config();
  const auto bytes = [n_tokens](int64_t width) {
    return static_cast<size_t>(n_tokens * width) * sizeof(float);
  };
  RETURN_IF_ERROR(device_->Reserve(bytes(c.hidden_size), &work_.x));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.hidden_size), &work_.normed));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.n_heads * c.head_dim), &work_.q));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.n_kv_heads * c.head_dim), &work_.k));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.n_kv_heads * c.head_dim), &work_.v));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.n_heads * c.head_dim), &work_.attention));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.intermediate_size), &work_.gate));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.intermediate_size), &work_.up));
  RETURN_IF_ERROR(device_->Reserve(bytes(c.n_heads), &work_.lse));
  return absl::OkStatus();
}

absl::Status TransformerImpl::Embed(std::span<const int32_t> ids, float* out) {
  const ModelConfig& c = config();
  return compute::Embedding(
      *device_, {.table = {embedding_->dtype, embedding_->data, {c.vocab_size, c.hidden_size}},
                 .ids = ids,
                 .out = {out, {static_cast<int64_t>(ids.size()), c.hidden_size}}});
}

absl::Status TransformerImpl::Norm(const float* x, const std::vector<float>& weight,
                                   int64_t n_tokens, float* out) {
  const int64_t hidden_size = config().hidden_size;
  return compute::RmsNorm(*device_, {.x = {x, {n_tokens, hidden_size}},
                                     .weight = {weight.data(), {hidden_size}},
                                     .out = {out, {n_tokens, hidden_size}},
                                     .eps = config().rms_norm_eps});
}

absl::Status TransformerImpl::Rotate(float* x, int64_t n_tokens, int64_t n_heads,
                                     int64_t first_position) {
  const int64_t head_dim = config().head_dim;
  return compute::Rope(*device_,
                       {.x = {x, {n_tokens, n_heads, head_dim}},
                        .inverse_frequencies = {inverse_frequencies_.data(), {head_dim / 2}},
                        .first_position = first_position});
}

absl::Status TransformerImpl::Mlp(const Layer& layer, int64_t n_tokens) {
  const ModelConfig& c = config();
  const View x(work_.x.data<float>(), {n_tokens, c.hidden_size});
  const View normed(work_.normed.data<float>(), {n_tokens, c.hidden_size});
  const View gate(work_.gate.data<float>(), {n_tokens, c.intermediate_size});
  const View up(work_.up.data<float>(), {n_tokens, c.intermediate_size});
  RETURN_IF_ERROR(Norm(x.As<float>(), layer.mlp_norm, n_tokens, normed.As<float>()));
  const Linear::Output outputs[] = {{layer.gate.get(), gate}, {layer.up.get(), up}};
  RETURN_IF_ERROR(Linear::ForwardTogether(*device_, outputs, normed));
  RETURN_IF_ERROR(compute::SiluMul(*device_, {.gate = gate, .up = up, .out = gate}));
  return layer.down->Forward(*device_, gate, true, x);
}

EntryVector TransformerImpl::MemoryValues(const float* values, int64_t n_tokens) const {
  const auto n_values = static_cast<size_t>(n_tokens * config().n_kv_heads * config().head_dim);
  EntryVector entries(memory_config_.entry_type, n_values);
  entries.Set(0, values, n_values);
  return entries;
}

EntryVector TransformerImpl::MemoryKeys(int memory_layer, const float* keys,
                                        int64_t n_tokens) const {
  const std::vector<float>& gain = key_gains_[static_cast<size_t>(memory_layer)];
  if (gain.empty()) return MemoryValues(keys, n_tokens);
  const ModelConfig& c = config();
  const auto head_dim = static_cast<size_t>(c.head_dim);
  const auto n_rows = static_cast<size_t>(n_tokens * c.n_kv_heads);
  EntryVector entries(memory_config_.entry_type, n_rows * head_dim);
  std::vector<float> scaled(head_dim);
  for (size_t row = 0; row < n_rows; ++row, keys += head_dim) {
    const float factor = gain[row % static_cast<size_t>(c.n_kv_heads)];
    for (size_t i = 0; i < head_dim; ++i) scaled[i] = keys[i] * factor;
    entries.Set(row * head_dim, scaled.data(), head_dim);
  }
  return entries;
}

absl::StatusOr<std::vector<EncodedWindow>> TransformerImpl::Encode(
    std::span<const WindowTokens> windows) {
  const ModelConfig& c = config();
  if (memory_config_.mem_layers.empty()) return NoMemoryLayers();
  std::vector<int32_t> ids;
  struct Span {
    int64_t begin;      // row of the window's first context token
    int64_t n_context;  // tokens seen but not stored
    int64_t n_tokens;   // context + stored
  };
  std::vector<Span> spans;
  std::vector<EncodedWindow> encoded(windows.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    const WindowTokens& window = windows[w];
    if (window.tokens.empty()) return absl::InvalidArgumentError("a window without tokens");
    const auto n_context = static_cast<int64_t>(window.context.size());
    const auto n_stored = static_cast<int64_t>(window.tokens.size());
    spans.push_back({static_cast<int64_t>(ids.size()), n_context, n_context + n_stored});
    ids.insert(ids.end(), window.context.begin(), window.context.end());
    ids.insert(ids.end(), window.tokens.begin(), window.tokens.end());
    encoded[w].n_tokens = n_stored;
    encoded[w].n_sampled = SampleSize(n_stored);
  }
  const auto n_rows = static_cast<int64_t>(ids.size());
  RETURN_IF_ERROR(Reserve(n_rows));
  float* x = work_.x.data<float>();
  float* normed = work_.normed.data<float>();
  float* q = work_.q.data<float>();
  float* k = work_.k.data<float>();
  float* v = work_.v.data<float>();
  float* attention = work_.attention.data<float>();
  const int64_t q_size = c.n_heads * c.head_dim;
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  RETURN_IF_ERROR(Embed(ids, x));

  const int64_t last_layer = memory_config_.mem_layers.back();
  for (int64_t l = 0; l <= last_layer; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const int memory_layer = MemoryIndex(l);
    RETURN_IF_ERROR(Norm(x, layer.attention_norm, n_rows, normed));
    const Linear::Output outputs[] = {{layer.k.get(), {k, {n_rows, kv_size}}},
                                      {layer.v.get(), {v, {n_rows, kv_size}}},
                                      {layer.q.get(), {q, {n_rows, q_size}}}};
    RETURN_IF_ERROR(Linear::ForwardTogether(*device_, outputs, {normed, {n_rows, c.hidden_size}}));
    for (size_t w = 0; w < spans.size(); ++w) {
      const Span& span = spans[w];
      if (memory_layer >= 0) {
        const int64_t first = span.begin + span.n_context;
        const int64_t n = encoded[w].n_tokens;
        encoded[w].keys.push_back(MemoryKeys(memory_layer, k + first * kv_size, n));
        encoded[w].values.push_back(MemoryValues(v + first * kv_size, n));
      }
      if (Rotates(l)) {
        RETURN_IF_ERROR(Rotate(q + span.begin * q_size, span.n_tokens, c.n_heads, 0));
        RETURN_IF_ERROR(Rotate(k + span.begin * kv_size, span.n_tokens, c.n_kv_heads, 0));
      }
      if (memory_layer >= 0) {
        std::vector<BFloat16>& sample =
            encoded[w].queries.emplace_back(encoded[w].n_sampled * q_size);
        for (int64_t s = 0; s < encoded[w].n_sampled; ++s) {
          const int64_t token = SampledToken(s, encoded[w].n_tokens);
          FloatToBFloat16(q + (span.begin + span.n_context + token) * q_size,
                          sample.data() + s * q_size, static_cast<size_t>(q_size));
        }
      }
      if (l == last_layer) continue;
      RETURN_IF_ERROR(compute::Attention(
          *device_, {.queries = HeadsOf(q + span.begin * q_size, span.n_tokens),
                     .keys = KvHeadsOf(k + span.begin * kv_size, span.n_tokens),
                     .values = KvHeadsOf(v + span.begin * kv_size, span.n_tokens),
                     .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                     .causal = true,
                     .output = HeadsOf(attention + span.begin * q_size, span.n_tokens)}));
    }
    if (l == last_layer) break;  // nothing after the last memory layer's keys is needed
    RETURN_IF_ERROR(layer.o->Forward(*device_, {attention, {n_rows, q_size}}, true,
                                     {x, {n_rows, c.hidden_size}}));
    RETURN_IF_ERROR(Mlp(layer, n_rows));
  }
  return encoded;
}

absl::Status TransformerImpl::GrowContext(int64_t n_tokens, LocalContext* context) {
  if (n_tokens <= ContextCapacity(context)) return absl::OkStatus();
  const ModelConfig& c = config();
  const int64_t capacity =
      std::min(std::max<int64_t>({n_tokens, 2 * ContextCapacity(context), 512}),
               std::max(n_tokens, c.max_position_embeddings));
  const int64_t row = c.n_kv_heads * c.head_dim;
  const size_t used_bytes = static_cast<size_t>(ContextTokens(context) * row) * sizeof(float);
  const auto grow = [&](Buffer* buffer) -> absl::Status {
    ASSIGN_OR_RETURN(Buffer larger,
                     device_->Allocate(static_cast<size_t>(capacity * row) * sizeof(float)));
    if (used_bytes > 0) std::memcpy(larger.data<char>(), buffer->data<char>(), used_bytes);
    *buffer = std::move(larger);
    return absl::OkStatus();
  };
  ContextKeys(context).resize(static_cast<size_t>(c.n_layers));
  ContextValues(context).resize(static_cast<size_t>(c.n_layers));
  for (int64_t l = 0; l < c.n_layers; ++l) {
    if (KeepsKeys(*context)) RETURN_IF_ERROR(grow(&ContextKeys(context)[l]));
    if (KeepsValues(*context, l)) RETURN_IF_ERROR(grow(&ContextValues(context)[l]));
  }
  if (IsReference(*context)) ContextUnrotatedKeys(context).resize(memory_config_.mem_layers.size());
  for (Buffer& buffer : ContextUnrotatedKeys(context)) RETURN_IF_ERROR(grow(&buffer));
  ContextCapacity(context) = capacity;
  return absl::OkStatus();
}

absl::Status TransformerImpl::RunLayers(std::span<const int32_t> ids, int64_t n_layers,
                                        LocalContext* context, MemorySource* memory) {
  const ModelConfig& c = config();
  const auto n = static_cast<int64_t>(ids.size());
  if (n == 0) return absl::InvalidArgumentError("no tokens to run the model on");
  const int64_t past = ContextTokens(context);
  FOVEA_CHECK(past == 0 || !IsWindow(*context));
  const int64_t total = past + n;
  if (total > c.max_position_embeddings && !IsReference(*context)) {
    return absl::ResourceExhaustedError(
        StrCat("local context: ", past, " + ", n, " tokens, the model takes ",
               c.max_position_embeddings, ": ask a shorter question or re-read fewer passages"));
  }
  RETURN_IF_ERROR(Reserve(n));
  RETURN_IF_ERROR(GrowContext(total, context));
  float* x = work_.x.data<float>();
  float* normed = work_.normed.data<float>();
  float* q = work_.q.data<float>();
  float* attention = work_.attention.data<float>();
  float* lse = work_.lse.data<float>();
  const int64_t q_size = c.n_heads * c.head_dim;
  const int64_t kv_size = c.n_kv_heads * c.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  RETURN_IF_ERROR(Embed(ids, x));

  for (int64_t l = 0; l < n_layers; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const int memory_layer = memory == nullptr ? -1 : MemoryIndex(l);
    float* keys = KeepsKeys(*context) ? ContextKeys(context)[static_cast<size_t>(l)].data<float>()
                                      : work_.k.data<float>();
    float* values = KeepsValues(*context, l)
                        ? ContextValues(context)[static_cast<size_t>(l)].data<float>()
                        : work_.v.data<float>();
    float* k = keys + past * kv_size;
    RETURN_IF_ERROR(Norm(x, layer.attention_norm, n, normed));
    const Linear::Output outputs[] = {{layer.q.get(), {q, {n, q_size}}},
                                      {layer.k.get(), {k, {n, kv_size}}},
                                      {layer.v.get(), {values + past * kv_size, {n, kv_size}}}};
    RETURN_IF_ERROR(Linear::ForwardTogether(*device_, outputs, {normed, {n, c.hidden_size}}));
    if (const int m = MemoryIndex(l); m >= 0 && IsReference(*context)) {
      float* unrotated = ContextUnrotatedKeys(context)[static_cast<size_t>(m)].data<float>();
      std::copy(k, k + n * kv_size, unrotated + past * kv_size);
    }
    if (Rotates(l)) {
      const int64_t first_position = context->n_padding() + past;
      RETURN_IF_ERROR(Rotate(q, n, c.n_heads, first_position));
      RETURN_IF_ERROR(Rotate(k, n, c.n_kv_heads, first_position));
    }
    const View lse_view(lse, {n, c.n_heads});
    RETURN_IF_ERROR(compute::Attention(*device_, {.queries = HeadsOf(q, n),
                                                  .keys = KvHeadsOf(keys, total),
                                                  .values = KvHeadsOf(values, total),
                                                  .scale = scale,
                                                  .causal = true,
                                                  .output = HeadsOf(attention, n),
                                                  .lse = memory_layer >= 0 ? lse_view : View()}));
    if (memory_layer >= 0) {
      RETURN_IF_ERROR(
          device_->Reserve(static_cast<size_t>(n * q_size) * sizeof(float), &work_.memory_output));
      RETURN_IF_ERROR(
          device_->Reserve(static_cast<size_t>(n * c.n_heads) * sizeof(float), &work_.memory_lse));
      float* memory_output = work_.memory_output.data<float>();
      float* memory_lse = work_.memory_lse.data<float>();
      MemoryQuery query;
      query.memory_layer = memory_layer;
      query.queries = q;
      query.local_lse = lse;
      query.n_queries = n;
      query.n_heads = c.n_heads;
      query.n_kv_heads = c.n_kv_heads;
      query.head_dim = c.head_dim;
      query.scale = scale;
      RETURN_IF_ERROR(memory->Attend(query, memory_output, memory_lse));
      RETURN_IF_ERROR(
          compute::MergePartials(*device_, {.output = HeadsOf(attention, n),
                                            .lse = lse_view,
                                            .other_output = HeadsOf(memory_output, n),
                                            .other_lse = View(memory_lse, {n, c.n_heads})}));
    }
    RETURN_IF_ERROR(
        layer.o->Forward(*device_, {attention, {n, q_size}}, true, {x, {n, c.hidden_size}}));
    RETURN_IF_ERROR(Mlp(layer, n));
  }
  ContextTokens(context) = total;
  return absl::OkStatus();
}

absl::Status TransformerImpl::Forward(std::span<const int32_t> ids, LocalContext* context,
                                      MemorySource* memory, std::vector<float>* logits,
                                      bool all_logits) {
  const ModelConfig& c = config();
  const int64_t past = ContextTokens(context);
  int64_t n_layers = c.n_layers;
  if (IsWindow(*context) && logits == nullptr) {
    n_layers = memory_config_.mem_layers.empty() ? 0 : memory_config_.mem_layers.back() + 1;
  }
  RETURN_IF_ERROR(RunLayers(ids, n_layers, context, memory));
  if (logits == nullptr) return absl::OkStatus();
  const auto n = static_cast<int64_t>(ids.size());
  const int64_t n_out = all_logits ? n : 1;
  const float* last = work_.x.data<float>() + (n - n_out) * c.hidden_size;
  float* normed = work_.normed.data<float>();
  absl::Status status = Norm(last, final_norm_, n_out, normed);
  logits->resize(static_cast<size_t>(n_out * c.vocab_size));
  if (status.ok()) {
    status = lm_head_->Forward(*device_, {normed, {n_out, c.hidden_size}}, false,
                               {logits->data(), {n_out, c.vocab_size}});
  }
  if (!status.ok()) context->Truncate(past);
  return status;
}

// Passes queries on, and keeps a sample of them.
class QuerySampler final : public MemorySource {
 public:
  QuerySampler(MemorySource* memory, EncodedWindow* window) : memory_(memory), window_(window) {}

  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override {
    const int64_t row = query.n_heads * query.head_dim;
    std::vector<BFloat16>& sample = window_->queries.emplace_back(window_->n_sampled * row);
    for (int64_t s = 0; s < window_->n_sampled; ++s) {
      FloatToBFloat16(query.queries + SampledToken(s, query.n_queries) * row,
                      sample.data() + s * row, static_cast<size_t>(row));
    }
    return memory_->Attend(query, output, lse);
  }

 private:
  MemorySource* memory_;
  EncodedWindow* window_;
};

absl::StatusOr<EncodedWindow> TransformerImpl::EncodeAttending(std::span<const int32_t> ids,
                                                               MemorySource* memory) {
  if (memory_config_.mem_layers.empty()) return NoMemoryLayers();
  EncodedWindow sampled;
  sampled.n_sampled = SampleSize(static_cast<int64_t>(ids.size()));
  QuerySampler sampler(memory, &sampled);
  LocalContext context = LocalContext::ForWindow();
  RETURN_IF_ERROR(Forward(ids, &context, &sampler, nullptr, false));
  // As ToEncodedWindow(Entries(context), …), without a copy of all in floats.
  EncodedWindow window = std::move(sampled);
  window.n_tokens = context.n_tokens();
  for (size_t m = 0; m < memory_config_.mem_layers.size(); ++m) {
    const auto layer = static_cast<size_t>(memory_config_.mem_layers[m]);
    window.keys.push_back(MemoryKeys(
        static_cast<int>(m), ContextUnrotatedKeys(&context)[m].data<float>(), window.n_tokens));
    window.values.push_back(
        MemoryValues(ContextValues(&context)[layer].data<float>(), window.n_tokens));
  }
  return window;
}

MemoryEntries TransformerImpl::Entries(const LocalContext& context) const {
  FOVEA_CHECK(IsReference(context));
  const ModelConfig& c = config();
  MemoryEntries entries;
  entries.n_tokens = context.n_tokens();
  const int64_t size = entries.n_tokens * c.n_kv_heads * c.head_dim;
  for (size_t m = 0; m < memory_config_.mem_layers.size(); ++m) {
    std::vector<float>& keys = entries.keys.emplace_back();
    std::vector<float>& values = entries.values.emplace_back();
    if (size == 0) continue;
    const float* k = ContextUnrotatedKeys(context)[m].data<float>();
    const float* v =
        ContextValues(context)[static_cast<size_t>(memory_config_.mem_layers[m])].data<float>();
    keys.assign(k, k + size);
    values.assign(v, v + size);
    const std::vector<float>& gain = key_gains_[m];
    for (int64_t i = 0; i < size && !gain.empty(); ++i) {
      keys[static_cast<size_t>(i)] *= gain[static_cast<size_t>(i / c.head_dim % c.n_kv_heads)];
    }
  }
  return entries;
}

}  // namespace

EncodedWindow ToEncodedWindow(MemoryEntries entries, EntryType type) {
  EncodedWindow window;
  window.n_tokens = entries.n_tokens;
  const auto convert = [type](std::vector<std::vector<float>>& from, std::vector<EntryVector>* to) {
    for (std::vector<float>& layer : from) {
      if (type == EntryType::kFloat32) {
        to->emplace_back(std::move(layer));
      } else {
        to->emplace_back(type, layer.size()).Set(0, layer.data(), layer.size());
      }
    }
  };
  convert(entries.keys, &window.keys);
  convert(entries.values, &window.values);
  return window;
}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(Device* device,
                                                               const LoadOptions& options) {
  return TransformerImpl::Load(device, options);
}

}  // namespace fovea::model
