// The kernels of fused_ops.h, on pointers to a GPU's memory; "bf16": bfloat16 as 16 bits. `stream`
// is a cudaStream_t. Launch errors are found by the next call of LibTorch.
#pragma once

#include <cstdint>

namespace fovea::train::kernels {

// By row of [n_rows, size]: sum = x + delta (null: x alone, and `sum` is not written), out = sum /
// rms · weight, inverse_rms float32 [n_rows]. `size` even.
void AddRmsNorm(const void* x, const void* delta, const float* weight, int64_t n_rows, int64_t size,
                float eps, void* sum, void* out, float* inverse_rms, void* stream);
// The gradient of sum, by that of out and (may be null) what else came to sum.
void AddRmsNormGradient(const void* sum, const float* weight, const float* inverse_rms,
                        const void* out_gradient, const void* sum_gradient, int64_t n_rows,
                        int64_t size, void* gradient, void* stream);

// [n_rows, n_heads, dim], row r at position r mod n_positions: the first n_rotated heads are
// rotated (by the negative angle where `back`), the others copied. Tables: float32 [n_positions,
// dim / 2].
void RotateHeads(const void* x, const float* cos, const float* sin, int64_t n_rows,
                 int64_t n_positions, int64_t n_heads, int64_t n_rotated, int64_t dim, bool back,
                 void* out, void* stream);

// silu(gate) · up of [n_rows, 2·size], gate in front; `size` even.
void SwiGlu(const void* gate_up, int64_t n_rows, int64_t size, void* out, void* stream);
void SwiGluGradient(const void* gate_up, const void* out_gradient, int64_t n_rows, int64_t size,
                    void* gradient, void* stream);

}  // namespace fovea::train::kernels
