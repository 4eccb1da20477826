// The weights of a model on a device: what a forward pass reads and nothing that it writes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "compute/device.h"
#include "compute/linear.h"
#include "compute/view.h"
#include "model/config.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {

struct LayerWeights {
  compute::ConstView attention_norm;  // [hidden_size], float32
  compute::ConstView mlp_norm;        // [hidden_size], float32
  compute::ConstView q_norm, k_norm;  // [head_dim], float32; none without QK-norm
  std::unique_ptr<compute::Linear> q, k, v, o, gate, up, down;
};

// Immutable after Load but for copies that Linear makes under a lock: shared by threads, one Device
// each.
class ModelWeights {
 public:
  // `checkpoint` and `adapter` (may be null) outlive the weights: a CPU reads tensors where they
  // lie. `memory`: the memory layers that the model runs with.
  static absl::StatusOr<std::unique_ptr<const ModelWeights>> Load(compute::Device& device,
                                                                  const Checkpoint& checkpoint,
                                                                  const Adapter* adapter,
                                                                  MemoryConfig memory);
  // Makes ready what single-token steps use.
  void PrepareSteps(compute::Device& device) const;
  // The least max_rows_as_alone() of all products.
  int64_t max_rows_as_alone() const;

  const ModelConfig& config() const { return config_; }
  const MemoryConfig& memory() const { return memory_; }
  int64_t n_mem_layers() const { return static_cast<int64_t>(memory_.mem_layers.size()); }
  // Index of a layer among the memory layers, −1 for others.
  int64_t MemoryIndex(int64_t layer) const;
  bool Rotates(int64_t layer) const { return memory_.mem_positionals || MemoryIndex(layer) < 0; }

  const LayerWeights& layer(int64_t l) const { return layers_[static_cast<size_t>(l)]; }
  const compute::ConstView& embedding() const { return embedding_; }    // [vocab, hidden_size]
  const compute::ConstView& final_norm() const { return final_norm_; }  // [hidden_size]
  const compute::Linear& lm_head() const { return *lm_head_; }
  const compute::ConstView& inverse_frequencies() const { return inverse_frequencies_; }
  // [n_kv_heads], or none: 1.
  const compute::ConstView& key_gain(int64_t memory_layer) const {
    return key_gains_[static_cast<size_t>(memory_layer)];
  }

 private:
  friend class WeightLoader;
  void ForEachProduct(absl::FunctionRef<void(const compute::Linear&)> visit) const;
  ModelConfig config_;
  MemoryConfig memory_;
  std::vector<LayerWeights> layers_;
  compute::ConstView embedding_, final_norm_, inverse_frequencies_;
  std::vector<compute::ConstView> key_gains_;  // [n_mem_layers]
  std::unique_ptr<compute::Linear> lm_head_;
  std::vector<compute::Buffer> buffers_;  // what the views show
};

}  // namespace fovea::model
