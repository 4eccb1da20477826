// Rotary position embedding (Su et al. 2021), rotate-half order: dimension i is paired with
// i + head_dim/2, angle = position · inverse_frequency[i].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

// llama3 scaling of frequencies ("rope_type": "llama3"); factor 1 = none. `linear_factor` divides
// all positions ("linear" scaling).
struct RopeScaling {
  float llama3_factor = 1.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  int64_t original_max_position_embeddings = 8192;
  float linear_factor = 1.0f;
};

// theta^(−2i/head_dim), scaled; [head_dim/2], computed in float32 as the published code does.
std::vector<float> RopeInverseFrequencies(int64_t head_dim, float theta,
                                          const RopeScaling& scaling);

struct RopeArgs {
  View x;  // [n_tokens, n_heads, head_dim], float32, contiguous, head_dim even; rotated in place
  ConstView inverse_frequencies;  // [head_dim/2], float32
  int64_t first_position = 0;     // token t has position first_position + t
  // Several sequences, [n_sequences + 1]: positions begin anew at each of these tokens. From 0 up
  // to n_tokens. Empty: one sequence.
  std::span<const int64_t> sequence_begins = {};
};
// InvalidArgument for views of other types or shapes.
absl::Status Rope(Device& device, const RopeArgs& args);

}  // namespace fovea::compute
