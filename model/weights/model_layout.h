// What a LLaMA-family model of a given configuration consists of: the check of the configuration
// itself, and the name and shape of every tensor.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/weights/checkpoint.h"
#include "model/weights/stored_tensor.h"

namespace fovea::model {

// InvalidArgument says which value of `config` is out of range or contradicts another one. After
// an OK all products of its sizes fit in 63 bits.
absl::Status CheckModelConfig(const ModelConfig& config);

struct TensorLayout {
  std::string name;  // Hugging Face's
  std::string gguf_name;
  std::vector<int64_t> shape;
};

// Of a checked configuration; 9 to 12 tensors a layer and two or three more.
std::vector<TensorLayout> ModelTensors(const ModelConfig& config);

// "NAME: shape [8,4096], want [1024,4096]"; `stored_name` as the file calls it.
absl::Status CheckShape(std::string_view stored_name, std::span<const int64_t> shape,
                        std::span<const int64_t> want);

// The most tokens that a model with sliding-window attention computes as plain causal attention
// does: fovea has no sliding windows, so contexts end there.
int64_t ContextWithinWindow(int64_t max_position_embeddings, int64_t sliding_window);

enum class TensorNames { kHuggingFace, kGguf };

// The tensors of a model of a checked configuration, sorted by name, out of all that its files
// hold. InvalidArgument names a tensor that is missing or has another shape. Tensors left over are
// Unimplemented, because a model that has them computes something else; but for those that say
// nothing new (tables of rope, a tied lm_head).
absl::StatusOr<std::vector<Tensor>> TakeTensors(const ModelConfig& config, TensorTable table,
                                                TensorNames names);

}  // namespace fovea::model
