#include "model/transformer.h"

#include <algorithm>
#include <future>
#include <utility>

#include "model/decode_step.h"
#include "model/forward_pass.h"
#include "model/model_weights.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"
#include "model/window_encoder.h"

namespace fovea::model {
namespace {

using compute::Device;

class TransformerImpl final : public Transformer {
 public:
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(Device* device,
                                                           const LoadOptions& options);

  const ModelConfig& config() const override { return weights_->config(); }
  const MemoryConfig& memory_config() const override { return weights_->memory(); }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  int64_t n_mem_layers() const override { return weights_->n_mem_layers(); }
  Device* device() const override { return device_; }
  void PrepareSteps() override { weights_->PrepareSteps(*device_); }
  int64_t max_steps_as_alone() const override { return weights_->max_rows_as_alone(); }

  absl::Status Run(Device& device, std::span<const Sequence> sequences,
                   Workspace* workspace) const override {
    if (DecodeStep::Takes(*weights_, device, sequences)) {
      return DecodeStep::Run(*weights_, device, sequences[0], workspace);
    }
    return ForwardPass(*weights_, device, sequences, workspace).Run();
  }
  absl::StatusOr<std::vector<EncodedWindow>> Encode(Device& device,
                                                    std::span<const WindowTokens> windows,
                                                    MemorySource* memory,
                                                    Workspace* workspace) const override;
  absl::StatusOr<MemoryEntries> Entries(Device& device, const LocalContext& context) const override;

 private:
  // Null where the model has none and none is needed.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const Checkpoint& checkpoint,
                                                                  const LoadOptions& options);

  Device* device_ = nullptr;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string fingerprint_;
  std::unique_ptr<const ModelWeights> weights_;
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
  MemoryConfig memory = model->checkpoint_->memory_config();
  if (options.adapter) {
    ASSIGN_OR_RETURN(model->adapter_, Adapter::Load(*options.adapter, config));
    if (!model->adapter_->memory_config().mem_layers.empty()) {
      memory = model->adapter_->memory_config();
    }
  }
  const std::vector<int>& own = model->checkpoint_->memory_config().mem_layers;
  if (!options.mem_layers.empty() && !own.empty() && options.mem_layers != own) {
    return absl::InvalidArgumentError(
        StrCat(options.model,
               ": the model has memory layers of its own, which it was trained with: "
               "leave --mem-layers out"));
  }
  if (memory.mem_layers.empty()) memory.mem_layers = options.mem_layers;
  for (int layer : memory.mem_layers) {
    if (layer < 0 || layer >= config.n_layers) {
      return absl::InvalidArgumentError(StrCat("memory layer ", layer,
                                               ": the model has layers 0 … ", config.n_layers - 1,
                                               "; name others (--mem-layers, --adapter)"));
    }
  }
  std::sort(memory.mem_layers.begin(), memory.mem_layers.end());
  ASSIGN_OR_RETURN(model->weights_,
                   ModelWeights::Load(*device, *model->checkpoint_, model->adapter_.get(), memory));
  ASSIGN_OR_RETURN(model->tokenizer_, tokenizer.get());

  FastHasher hasher;
  fingerprint.wait();
  hasher.Update(model->checkpoint_->Fingerprint().ToHex());
  if (model->adapter_ != nullptr) hasher.Update(model->adapter_->Fingerprint().ToHex());
  hasher.Update(AsBytes(std::span<const int>(memory.mem_layers)));
  hasher.Update(memory.mem_positionals ? "rope" : "nope");
  model->fingerprint_ = hasher.Finish().ToHex();
  return model;
}

absl::StatusOr<std::vector<EncodedWindow>> TransformerImpl::Encode(
    Device& device, std::span<const WindowTokens> windows, MemorySource* memory,
    Workspace* workspace) const {
  return WindowEncoder(*weights_, device, workspace).Encode(windows, memory);
}

absl::StatusOr<MemoryEntries> TransformerImpl::Entries(Device& device,
                                                       const LocalContext& context) const {
  FOVEA_CHECK(context.keeps_entries() && context.dtype() == compute::DType::kF32);
  MemoryEntries entries;
  entries.n_tokens = context.n_tokens();
  for (int64_t m = 0; m < n_mem_layers(); ++m) {
    std::vector<float>& keys = entries.keys.emplace_back();
    std::vector<float>& values = entries.values.emplace_back();
    if (entries.n_tokens == 0) continue;
    const int64_t layer = memory_config().mem_layers[static_cast<size_t>(m)];
    for (const auto& [from, to] :
         {std::pair(context.MemoryKeys(m, 0, entries.n_tokens), &keys),
          std::pair(context.Values(layer, 0, entries.n_tokens), &values)}) {
      to->resize(static_cast<size_t>(from.size()));
      RETURN_IF_ERROR(device.CopyToHost(from.data(), to->size() * sizeof(float), to->data()));
    }
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(Device* device,
                                                               const LoadOptions& options) {
  return TransformerImpl::Load(device, options);
}

absl::Status Transformer::Forward(std::span<const int32_t> ids, LocalContext* context,
                                  MemorySource* memory, std::vector<float>* logits,
                                  bool all_logits) {
  const Sequence sequence{
      .ids = ids, .context = context, .memory = memory, .logits = logits, .all_logits = all_logits};
  return Run(*device(), {&sequence, 1}, &workspace_);
}

absl::StatusOr<std::vector<EncodedWindow>> Transformer::Encode(
    std::span<const WindowTokens> windows) {
  return Encode(*device(), windows, nullptr, &workspace_);
}

}  // namespace fovea::model
