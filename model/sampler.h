// Picks the next token: greedy, or from the softmax at a temperature with a seeded generator.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace fovea::model {

// Not thread-safe. The same seed and logits give the same tokens on every platform.
class Sampler {
 public:
  // temperature 0: the largest logit (the smallest id among equals).
  Sampler(float temperature, uint64_t seed);
  int32_t Sample(std::span<const float> logits);

 private:
  float temperature_;
  std::mt19937_64 generator_;
};

}  // namespace fovea::model
