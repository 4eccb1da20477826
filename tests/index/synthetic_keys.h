// Keys that look like those of attention: a strong common mean, noise, and a few outliers (the
// needles that some queries look for), two KV heads or more.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "compute/key_scan.h"
#include "index/layer_index.h"

namespace fovea::index {

struct SyntheticKeys {
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t n_keys = 0;
  std::vector<std::vector<BFloat16>> keys;  // [n_kv_heads][n_keys, head_dim]

  SyntheticKeys(int64_t n_kv_heads, int64_t n_keys, int64_t head_dim, uint32_t seed)
      : n_kv_heads(n_kv_heads), head_dim(head_dim), n_keys(n_keys) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      std::vector<float> mean(static_cast<size_t>(head_dim));
      for (float& value : mean) value = 2.0f * normal(random);
      std::vector<BFloat16>& head = keys.emplace_back(static_cast<size_t>(n_keys * head_dim));
      for (size_t i = 0; i < head.size(); ++i) {
        head[i] = BFloat16(mean[i % static_cast<size_t>(head_dim)] + normal(random));
      }
    }
  }

  const BFloat16* Key(int64_t kv_head, int64_t position) const {
    return keys[static_cast<size_t>(kv_head)].data() + position * head_dim;
  }

  // Key `position` of a head becomes the mean's neighbour in `direction` [head_dim], far out.
  void Plant(int64_t kv_head, int64_t position, const std::vector<float>& direction,
             float distance) {
    BFloat16* key = keys[static_cast<size_t>(kv_head)].data() + position * head_dim;
    for (int64_t d = 0; d < head_dim; ++d) {
      key[d] = BFloat16(static_cast<float>(key[d]) + distance * direction[static_cast<size_t>(d)]);
    }
  }

  // All keys with ids 0 … n_keys − 1, or only positions of `runs` (id = position).
  std::vector<HeadKeys> All() const { return Some({{nullptr, n_keys, 0}}); }
  std::vector<HeadKeys> Some(const HeadKeys& runs) const {
    std::vector<HeadKeys> result;
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      HeadKeys& head = result.emplace_back();
      for (const compute::KeyRun& run : runs) {
        head.push_back({Key(h, run.first_id), run.n_keys, run.first_id});
      }
    }
    return result;
  }
};

inline std::vector<float> RandomUnit(int64_t head_dim, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> unit(static_cast<size_t>(head_dim));
  float norm2 = 0.0f;
  for (float& value : unit) {
    value = normal(random);
    norm2 += value * value;
  }
  for (float& value : unit) value /= std::sqrt(norm2);
  return unit;
}

// Keys that differ by a lot where no query looks (the first three quarters of the dimensions), and
// by little where they do, and needles there. Codes spend their steps on the large differences,
// whose rounding hides the small ones: the smaller `distance`, by which needles stand out, the more
// bits a dimension it takes to find them. With 64 dimensions and 2, 4 and 8 bits the rounding is
// about 0.5, 0.15 and 0.02.
struct BlurredNeedles {
  static constexpr int64_t kDim = 64, kHidden = 48;
  SyntheticKeys keys;
  std::vector<int64_t> needles;            // ascending
  std::vector<std::vector<float>> looked;  // [n_needles][head_dim]: a query for each

  BlurredNeedles(int64_t n_kv_heads, int64_t n_keys, int64_t n_needles, float distance,
                 uint32_t seed)
      : keys(n_kv_heads, n_keys, kDim, seed) {
    std::mt19937 random(seed + 1);
    std::normal_distribution<float> normal;
    for (std::vector<BFloat16>& head : keys.keys) {
      for (size_t i = 0; i < head.size(); ++i) {
        const bool is_hidden = static_cast<int64_t>(i % kDim) < kHidden;
        head[i] = BFloat16((is_hidden ? 1.75f : 0.02f * distance) * normal(random));
      }
    }
    for (int64_t n = 0; n < n_needles; ++n) {
      needles.push_back(n * n_keys / n_needles);
      std::vector<float> direction(kHidden, 0.0f);
      for (const float value : RandomUnit(kDim - kHidden, random)) direction.push_back(value);
      for (int64_t h = 0; h < n_kv_heads; ++h) keys.Plant(h, needles.back(), direction, distance);
      // Far enough for nearly all of a softmax with scale 1/8.
      for (float& value : direction) value *= 80.0f / distance;
      looked.push_back(std::move(direction));
    }
  }
};

inline std::vector<float> RandomQueries(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> queries(static_cast<size_t>(n));
  for (float& value : queries) value = normal(random);
  return queries;
}

}  // namespace fovea::index
