// Picks the next token: greedy, or from the softmax at a temperature with a seeded generator, from
// all tokens or from the likeliest ones (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751).
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace fovea::model {

struct SamplingOptions {
  float temperature = 0.0f;  // 0: the largest logit (the smallest id among equals)
  // Only the fewest likeliest tokens that have this share of the probability together; 1: all.
  float top_p = 1.0f;
  uint64_t seed = 0;
};

// Not thread-safe. The same options and logits give the same tokens on every platform.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), generator_(options.seed) {}
  int32_t Sample(std::span<const float> logits);

 private:
  int32_t SampleNucleus();
  // e^((logit − the largest) / temperature) of each → weights_.
  void ComputeWeights(std::span<const float> logits);
  double Uniform();  // in [0, 1)

  SamplingOptions options_;
  std::mt19937_64 generator_;
  // Of the last sample.
  std::vector<float> weights_;
  std::vector<double> block_sums_;  // of weights, a number of them each
};

}  // namespace fovea::model
