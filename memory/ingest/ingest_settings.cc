#include "memory/ingest/ingest_settings.h"

#include <algorithm>

#include "index/layer_index.h"

namespace fovea::memory {

absl::StatusOr<storage::StoreSettings> AgreeOnSettings(Memory* memory,
                                                       const model::Transformer& model,
                                                       const IngestOptions& options) {
  const auto& config = model.config();
  if (!memory->settings()) {
    storage::StoreSettings settings;
    settings.fingerprint = model.fingerprint();
    settings.model = options.model_name;
    settings.adapter = options.adapter_name;
    settings.window = options.window > 0 ? options.window : model.memory_config().window;
    settings.encoding =
        options.encoding.empty() ? model.memory_config().encoding : options.encoding;
    const bool is_reference = settings.encoding == "reference";
    if (is_reference && options.window <= 0) {
      settings.window = static_cast<int>(config.max_position_embeddings);
    }
    settings.overlap = options.overlap >= 0 ? options.overlap
                       : is_reference       ? 0
                                            : std::min(128, settings.window / 8);
    settings.index_spec = options.index_spec.empty() ? "auto" : options.index_spec;
    settings.n_mem_layers = static_cast<int>(model.n_mem_layers());
    settings.n_kv_heads = static_cast<int>(config.n_kv_heads);
    settings.head_dim = static_cast<int>(config.head_dim);
    settings.entry_type = model.memory_config().entry_type;
    if (settings.encoding != "window-local" && !is_reference) {
      return absl::InvalidArgumentError(
          StrCat("encoding \"", settings.encoding, "\": want \"window-local\" or \"reference\""));
    }
    if (is_reference && settings.n_mem_layers == 0) {
      return absl::FailedPreconditionError(
          "encoding \"reference\": the model has no memory layers; name some with --mem-layers");
    }
    if (is_reference && settings.overlap != 0) {
      return absl::InvalidArgumentError(StrCat(
          "overlap of ", settings.overlap,
          " tokens: windows of encoding \"reference\" have none, they attend to the memory"));
    }
    if (settings.window < 16 || settings.window > config.max_position_embeddings) {
      return absl::InvalidArgumentError(StrCat("window of ", settings.window, " tokens: want 16 … ",
                                               config.max_position_embeddings,
                                               " (the model's positions)"));
    }
    if (settings.overlap >= settings.window ||
        settings.window + settings.overlap > config.max_position_embeddings) {
      return absl::InvalidArgumentError(
          StrCat("overlap of ", settings.overlap, " tokens: want less than the window of ",
                 settings.window, ", and both together within the model's ",
                 config.max_position_embeddings, " positions"));
    }
    RETURN_IF_ERROR(index::ValidateSpec(settings.index_spec, settings.head_dim));
    RETURN_IF_ERROR(memory->InitializeSettings(settings));
  }
  RETURN_IF_ERROR(memory->CheckModel(model));
  storage::StoreSettings settings = *memory->settings();
  const auto contradiction = [memory](std::string_view what, const auto& have, const auto& given) {
    return absl::FailedPreconditionError(StrCat(memory->folder(), ": was made with ", what, " ",
                                                have, ", not ", given, "; leave ", what,
                                                " out, or start a new memory"));
  };
  if (options.window > 0 && options.window != settings.window) {
    return contradiction("--window", settings.window, options.window);
  }
  if (options.overlap >= 0 && options.overlap != settings.overlap) {
    return contradiction("--overlap", settings.overlap, options.overlap);
  }
  if (!options.encoding.empty() && options.encoding != settings.encoding) {
    return contradiction("--encoding", settings.encoding, options.encoding);
  }
  if (!options.index_spec.empty() && options.index_spec != settings.index_spec) {
    return absl::FailedPreconditionError(StrCat(
        memory->folder(), ": has index \"", settings.index_spec, "\", not \"", options.index_spec,
        "\"; `fovea rebuild --index ", options.index_spec, "` changes it"));
  }
  return settings;
}

int EncodeBatchTokens(const storage::StoreSettings& settings, const model::ModelConfig& config,
                      const compute::Device& device) {
  constexpr int64_t kOnHost = 4096;  // more would gain nothing
  // A GPU computes a small model's products at its speed with tens of thousands of rows. A larger
  // one needs fewer, whose activations in float32 take more room.
  constexpr int64_t kOnDevice = 32768;
  constexpr int64_t kActivationBytes = int64_t{2} << 30;
  // Windows that attend to the memory are encoded one at a time.
  if (device.is_host_memory() || settings.encoding == "reference") return kOnHost;
  const int64_t row = 2 * (config.hidden_size + config.intermediate_size) +
                      2 * config.head_dim * (config.n_heads + config.n_kv_heads);
  const int64_t row_bytes = row * static_cast<int64_t>(sizeof(float));
  // Beside other programs on the GPU smaller batches may be all that there is room for.
  const compute::DeviceMemory memory = device.memory();
  int64_t free_bytes = kActivationBytes;
  if (memory.total_bytes > 0) {
    free_bytes = std::min(free_bytes, static_cast<int64_t>(memory.free_bytes / 4));
  }
  return static_cast<int>(std::clamp(free_bytes / row_bytes, kOnHost, kOnDevice));
}

}  // namespace fovea::memory
