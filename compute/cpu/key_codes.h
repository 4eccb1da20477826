// Keys and queries as a coded scan (compute/code_scan.h) has them: rotated, and the keys in codes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/code_scan.h"

namespace fovea::compute::cpu {

inline constexpr int64_t kCodeLineBytes = 64;

// x [head_dim] → rotated [padded_dim].
void RotateForCodes(const KeyCoder& coder, const float* x, float* rotated);

// KeyCoder::EncodeBlock.
void EncodeCodeBlock(const KeyCoder& coder, const float* keys, int64_t n_keys, std::byte* codes,
                     BFloat16* factors);

}  // namespace fovea::compute::cpu
