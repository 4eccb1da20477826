// What stands between the products of a layer, each with its gradient: one kernel on a GPU in
// bfloat16 (where the build has CUDA), LibTorch's operators elsewhere, with the same results but
// for rounding.
#pragma once

#include <cstdint>
#include <utility>

#include "train/torch.h"

namespace fovea::train {

// x + delta (undefined: x itself), and RMSNorm (Zhang and Sennrich 2019) of it, by float32: both of
// x's shape and type. `weight`: float32 [last dimension of x]; it gets no gradient.
std::pair<torch::Tensor, torch::Tensor> AddRmsNorm(const torch::Tensor& x,
                                                   const torch::Tensor& delta,
                                                   const torch::Tensor& weight, double eps);

// [n, n_tokens, n_heads, head_dim]: RoPE (Su et al. 2021; halves rotate against each other) of the
// first `n_rotated` heads, from position 0; the others as they are. Tables: float32 [at least
// n_tokens, head_dim / 2].
torch::Tensor RotateHeads(const torch::Tensor& x, int64_t n_rotated, const torch::Tensor& cos,
                          const torch::Tensor& sin);

// silu(gate) · up (Shazeer 2020) of [..., 2·size], gate in front: [..., size].
torch::Tensor SwiGlu(const torch::Tensor& gate_up);

}  // namespace fovea::train
