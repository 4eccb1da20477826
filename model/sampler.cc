#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace fovea::model {

Sampler::Sampler(float temperature, uint64_t seed) : temperature_(temperature), generator_(seed) {}

int32_t Sampler::Sample(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (temperature_ <= 0.0f) return static_cast<int32_t>(best - logits.begin());
  double total = 0.0;
  for (float logit : logits) total += std::exp((logit - *best) / temperature_);
  // 53 random bits, not std::uniform_real_distribution: its result differs by library.
  const double uniform = static_cast<double>(generator_() >> 11) * 0x1p-53;
  double left = uniform * total;
  for (size_t i = 0; i < logits.size(); ++i) {
    left -= std::exp((logits[i] - *best) / temperature_);
    if (left < 0.0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(best - logits.begin());  // rounding left a remainder
}

}  // namespace fovea::model
