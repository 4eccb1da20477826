#include "model/sampler.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace fovea::model {
namespace {

// e^x for x ≤ 0, within 2 units in the last place; e⁻⁸⁷, as good as nothing, for smaller ones and
// NaN. Sums and products alone, of which the compiler makes vectors, and no fused ones
// (model/CMakeLists.txt): the same number everywhere, in a fraction of the time of std::exp.
inline float Exp(float x) {
  const float y = std::max(-87.0f, x);
  // e^y = 2^n · e^r, |r| ≤ ln 2 / 2. ln 2 is in two parts: n times the first one is exact.
  constexpr float kRound = 0x1.8p23f;  // a sum with it is an integer
  const float n = (y * 0x1.715476p0f + kRound) - kRound;
  const float r = (y - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  // Taylor's polynomial of degree 6.
  float e = 0x1.6c16c2p-10f * r + 0x1.111112p-7f;
  e = e * r + 0x1.555556p-5f;
  e = e * r + 0x1.555556p-3f;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  return e * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// Sums and maxima that are made beside one another, and numbers in a block of those of a
// vocabulary.
constexpr size_t kLanes = 8;
constexpr size_t kBlock = 256;

}  // namespace

double Sampler::Uniform() {
  // 53 random bits, not std::uniform_real_distribution: its result differs by library.
  return static_cast<double>(generator_() >> 11) * 0x1p-53;
}

int32_t Sampler::Sample(std::span<const float> logits) {
  if (options_.temperature <= 0.0f) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  ComputeWeights(logits);
  if (options_.top_p < 1.0f) return SampleNucleus();
  // The drawn token is looked for among blocks, then in one.
  double total = 0.0;
  block_sums_.clear();
  for (size_t begin = 0; begin < weights_.size(); begin += kBlock) {
    double sums[kLanes] = {};
    const size_t end = std::min(begin + kBlock, weights_.size());
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += weights_[i + lane];
    }
    for (; i < end; ++i) sums[0] += weights_[i];
    block_sums_.push_back(std::accumulate(sums, sums + kLanes, 0.0));
    total += block_sums_.back();
  }
  double left = Uniform() * total;
  size_t block = 0;
  while (block + 1 < block_sums_.size() && left >= block_sums_[block]) left -= block_sums_[block++];
  size_t last = 0;  // that may be drawn, where rounding left a remainder
  for (size_t i = block * kBlock; i < std::min((block + 1) * kBlock, weights_.size()); ++i) {
    left -= weights_[i];
    last = i;
    if (left < 0.0) break;
  }
  return static_cast<int32_t>(last);
}

void Sampler::ComputeWeights(std::span<const float> logits) {
  float bests[kLanes];
  std::fill_n(bests, kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      bests[lane] = std::max(bests[lane], logits[i + lane]);
    }
  }
  for (; i < logits.size(); ++i) bests[0] = std::max(bests[0], logits[i]);
  const float best = *std::max_element(bests, bests + kLanes);
  weights_.resize(logits.size());
  float* const weights = weights_.data();
  for (size_t j = 0; j < logits.size(); ++j) {
    weights[j] = Exp((logits[j] - best) / options_.temperature);
  }
}

int32_t Sampler::SampleNucleus() {
  struct Token {
    float weight;
    int32_t id;
  };
  std::vector<Token> tokens(weights_.size());
  double total = 0.0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    tokens[i] = {weights_[i], static_cast<int32_t>(i)};
    total += weights_[i];
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
