// What a LLaMA-family model of a given configuration consists of: the check of the configuration
// itself, and the name and shape of every tensor.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {

// InvalidArgument says which value of `config` is out of range or contradicts another one. After
// an OK all products of its sizes fit in 63 bits.
absl::Status CheckModelConfig(const ModelConfig& config);

struct TensorLayout {
  std::string name;  // Hugging Face's
  std::string gguf_name;
  std::vector<int64_t> shape;
  // Heads whose rows rope pairs up (q_proj, k_proj); 0 for all other tensors.
  int64_t n_rope_heads = 0;
};

// Of a checked configuration; 9 or 12 tensors a layer and two or three more.
std::vector<TensorLayout> ModelTensors(const ModelConfig& config);

// "NAME: shape [8,4096], want [1024,4096]"; `stored_name` as the file calls it.
absl::Status CheckShape(std::string_view stored_name, std::span<const int64_t> shape,
                        std::span<const int64_t> want);

// The most tokens that a model with sliding-window attention computes as plain causal attention
// does: fovea has no sliding windows, so contexts end there.
int64_t ContextWithinWindow(int64_t max_position_embeddings, int64_t sliding_window);

// Adds the tokens that end an answer in the known chat formats and exist as control tokens.
void AddEndTokens(TokenizerSpec* spec);

// InvalidArgument unless ids lie in the vocabulary, `types` (and SentencePiece's `scores`) are as
// long as `tokens`, and the embedding table (of `vocab_size` rows) has a row for every token.
absl::Status CheckTokenizerSpec(const TokenizerSpec& spec, int64_t vocab_size);

}  // namespace fovea::model
