#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace fovea::model {

double Sampler::Uniform() {
  // 53 random bits, not std::uniform_real_distribution: its result differs by library.
  return static_cast<double>(generator_() >> 11) * 0x1p-53;
}

int32_t Sampler::Sample(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  const float temperature = options_.temperature;
  if (temperature <= 0.0f) return static_cast<int32_t>(best - logits.begin());
  if (options_.top_p < 1.0f) return SampleNucleus(logits, *best);
  double total = 0.0;
  for (float logit : logits) total += std::exp((logit - *best) / temperature);
  double left = Uniform() * total;
  for (size_t i = 0; i < logits.size(); ++i) {
    left -= std::exp((logits[i] - *best) / temperature);
    if (left < 0.0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(best - logits.begin());  // rounding left a remainder
}

int32_t Sampler::SampleNucleus(std::span<const float> logits, float best) {
  struct Token {
    float weight;
    int32_t id;
  };
  std::vector<Token> tokens(logits.size());
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float weight = std::exp((logits[i] - best) / options_.temperature);
    tokens[i] = {weight, static_cast<int32_t>(i)};
    total += weight;
  }
  // A heap: the nucleus is a small part of the vocabulary, and the rest need not be sorted.
  const auto is_less = [](const Token& a, const Token& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.id > b.id;
  };
  std::make_heap(tokens.begin(), tokens.end(), is_less);
  double in_nucleus = 0.0;
  auto end = tokens.end();  // behind it, from the last one on: the nucleus, likeliest first
  while (end != tokens.begin() && (end == tokens.end() || in_nucleus < options_.top_p * total)) {
    std::pop_heap(tokens.begin(), end, is_less);
    in_nucleus += (--end)->weight;
  }
  double left = Uniform() * in_nucleus;
  for (auto token = tokens.end(); token != end;) {
    left -= (--token)->weight;
    if (left < 0.0) return token->id;
  }
  return tokens.back().id;  // rounding left a remainder
}

}  // namespace fovea::model
