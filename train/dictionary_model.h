// The model of the dictionary task, made from nothing: a Qwen3 of the paper's size (12 layers, 512
// wide, 8 heads; appendix E of arXiv 2307.03170) with QK-norm, one memory layer without positions,
// and a tokenizer that makes each of the task's characters a token.
#pragma once

#include <cstdint>
#include <string>

#include "model/config.h"
#include "texts/dictionary.h"
#include "train/model_writer.h"
#include "train/training_texts.h"

namespace fovea::train {

inline constexpr int64_t kDictionaryTokens =
    static_cast<int64_t>(texts::kDictionarySymbols.size()) + 3;  // with both marks and the line end

struct DictionaryModelShape {
  int64_t n_layers = 12;
  int64_t hidden_size = 512;
  int64_t n_heads = 8;  // of keys and values as many
  int64_t intermediate_size = 1344;
};

model::ModelConfig DictionaryModelConfig(const DictionaryModelShape& shape);
// config.json, tokenizer.json and tokenizer_config.json.
ModelFiles DictionaryModelFiles(const model::ModelConfig& config);

// As the tokenizer of these files has it: symbols by their numbers, then ':', '?' and the line end.
Tokens EncodeDictionaryText(std::string_view text);

}  // namespace fovea::train
