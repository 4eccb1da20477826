// What attention to kept keys must be, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/compute/op_test.h"

namespace fovea::compute {

struct KeptKey {
  double score;
  int64_t position;
  const float* value;
};

// output = [head_dim] and lse are one softmax over `kept`, best first, whose scores may be off by
// `score_error` before they are scaled.
inline void ExpectAttention(const std::vector<KeptKey>& kept, double scale, double score_error,
                            const float* output, size_t head_dim, float lse) {
  if (kept.empty()) {
    EXPECT_EQ(lse, -std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < head_dim; ++i) EXPECT_EQ(output[i], 0.0f);
    return;
  }
  double sum = 0.0;
  for (const KeptKey& key : kept) sum += std::exp((key.score - kept[0].score) * scale);
  const double want_lse = kept[0].score * scale + std::log(sum);
  // Of scores, and of a sum of so many weights.
  const double error =
      score_error * scale + 8.0 * kEpsilon + 0.5 * kEpsilon * static_cast<double>(kept.size());
  EXPECT_NEAR(lse, want_lse, error + 4.0 * kEpsilon * std::abs(want_lse));
  for (size_t i = 0; i < head_dim; ++i) {
    double want = 0.0, largest = 0.0;
    for (const KeptKey& key : kept) {
      want += std::exp(key.score * scale - want_lse) * key.value[i];
      largest = std::max<double>(largest, std::abs(key.value[i]));
    }
    ASSERT_NEAR(output[i], want, largest * (4.0 * error + 32.0 * kEpsilon));
  }
}

}  // namespace fovea::compute
