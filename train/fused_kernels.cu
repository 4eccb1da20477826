#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "train/fused_kernels.h"

namespace fovea::train::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
using Pair = __nv_bfloat162;

__device__ float WarpSum(float value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  return value;
}

// A warp a row: a lane meets the same pairs in each pass.
__global__ void __launch_bounds__(kThreads)
    AddRmsNormKernel(const Pair* x, const Pair* delta, const float2* weight, int64_t n_rows,
                     int n_pairs, float eps, Pair* sum, Pair* out, float* inverse_rms) {
  const int64_t row = (blockIdx.x * int64_t{kThreads} + threadIdx.x) / kWarp;
  if (row >= n_rows) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t begin = row * n_pairs;
  float squares = 0.0f;
  for (int i = lane; i < n_pairs; i += kWarp) {
    float2 value = __bfloat1622float2(x[begin + i]);
    if (delta != nullptr) {
      const float2 added = __bfloat1622float2(delta[begin + i]);
      const Pair rounded = __floats2bfloat162_rn(value.x + added.x, value.y + added.y);
      sum[begin + i] = rounded;
      value = __bfloat1622float2(rounded);
    }
    squares += value.x * value.x + value.y * value.y;
  }
  const float factor = rsqrtf(WarpSum(squares) / static_cast<float>(2 * n_pairs) + eps);
  if (lane == 0) inverse_rms[row] = factor;
  const Pair* from = delta != nullptr ? sum : x;
  for (int i = lane; i < n_pairs; i += kWarp) {
    const float2 value = __bfloat1622float2(from[begin + i]);
    const float2 w = weight[i];
    out[begin + i] = __floats2bfloat162_rn(value.x * factor * w.x, value.y * factor * w.y);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddRmsNormGradientKernel(const Pair* sum, const float2* weight, const float* inverse_rms,
                             const Pair* out_gradient, const Pair* sum_gradient, int64_t n_rows,
                             int n_pairs, Pair* gradient) {
  const int64_t row = (blockIdx.x * int64_t{kThreads} + threadIdx.x) / kWarp;
  if (row >= n_rows) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t begin = row * n_pairs;
  float dot = 0.0f;
  for (int i = lane; i < n_pairs; i += kWarp) {
    const float2 s = __bfloat1622float2(sum[begin + i]);
    const float2 g = __bfloat1622float2(out_gradient[begin + i]);
    const float2 w = weight[i];
    dot += s.x * g.x * w.x + s.y * g.y * w.y;
  }
  const float factor = inverse_rms[row];
  const float along = WarpSum(dot) * factor * factor * factor / static_cast<float>(2 * n_pairs);
  for (int i = lane; i < n_pairs; i += kWarp) {
    const float2 s = __bfloat1622float2(sum[begin + i]);
    const float2 g = __bfloat1622float2(out_gradient[begin + i]);
    const float2 w = weight[i];
    float2 d = make_float2(factor * w.x * g.x - along * s.x, factor * w.y * g.y - along * s.y);
    if (sum_gradient != nullptr) {
      const float2 more = __bfloat1622float2(sum_gradient[begin + i]);
      d = make_float2(d.x + more.x, d.y + more.y);
    }
    gradient[begin + i] = __floats2bfloat162_rn(d.x, d.y);
  }
}

// A thread a pair of numbers that rotate together (or are copied).
__global__ void __launch_bounds__(kThreads)
    RotateHeadsKernel(const __nv_bfloat16* x, const float* cos, const float* sin, int64_t n,
                      int64_t n_positions, int n_heads, int n_rotated, int half, float sign,
                      __nv_bfloat16* out) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= n) return;
  const int j = static_cast<int>(i % half);
  const int64_t row_head = i / half;
  const int64_t low = row_head * 2 * half + j;
  const float a = __bfloat162float(x[low]);
  const float b = __bfloat162float(x[low + half]);
  if (row_head % n_heads >= n_rotated) {
    out[low] = x[low];
    out[low + half] = x[low + half];
    return;
  }
  const int64_t at = row_head / n_heads % n_positions * half + j;
  const float c = cos[at];
  const float s = sign * sin[at];
  out[low] = __float2bfloat16_rn(a * c - b * s);
  out[low + half] = __float2bfloat16_rn(b * c + a * s);
}

// A thread a pair of neighbours.
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const Pair* gate_up, int64_t n, int n_pairs, Pair* out) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= n) return;
  const int64_t at = i / n_pairs * 2 * n_pairs + i % n_pairs;
  const float2 g = __bfloat1622float2(gate_up[at]);
  const float2 u = __bfloat1622float2(gate_up[at + n_pairs]);
  out[i] =
      __floats2bfloat162_rn(g.x / (1.0f + __expf(-g.x)) * u.x, g.y / (1.0f + __expf(-g.y)) * u.y);
}

__device__ float2 SwiGluGradientOf(float gate, float up, float d) {
  const float sigmoid = 1.0f / (1.0f + __expf(-gate));
  return make_float2(d * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)), d * gate * sigmoid);
}

__global__ void __launch_bounds__(kThreads)
    SwiGluGradientKernel(const Pair* gate_up, const Pair* out_gradient, int64_t n, int n_pairs,
                         Pair* gradient) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= n) return;
  const int64_t at = i / n_pairs * 2 * n_pairs + i % n_pairs;
  const float2 g = __bfloat1622float2(gate_up[at]);
  const float2 u = __bfloat1622float2(gate_up[at + n_pairs]);
  const float2 d = __bfloat1622float2(out_gradient[i]);
  const float2 first = SwiGluGradientOf(g.x, u.x, d.x);
  const float2 second = SwiGluGradientOf(g.y, u.y, d.y);
  gradient[at] = __floats2bfloat162_rn(first.x, second.x);
  gradient[at + n_pairs] = __floats2bfloat162_rn(first.y, second.y);
}

unsigned Blocks(int64_t n_threads) {
  return static_cast<unsigned>((n_threads + kThreads - 1) / kThreads);
}
const Pair* Pairs(const void* x) { return static_cast<const Pair*>(x); }
Pair* Pairs(void* x) { return static_cast<Pair*>(x); }
cudaStream_t Stream(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

void AddRmsNorm(const void* x, const void* delta, const float* weight, int64_t n_rows, int64_t size,
                float eps, void* sum, void* out, float* inverse_rms, void* stream) {
  if (n_rows == 0) return;
  AddRmsNormKernel<<<Blocks(n_rows * kWarp), kThreads, 0, Stream(stream)>>>(
      Pairs(x), Pairs(delta), reinterpret_cast<const float2*>(weight), n_rows,
      static_cast<int>(size / 2), eps, Pairs(sum), Pairs(out), inverse_rms);
}

void AddRmsNormGradient(const void* sum, const float* weight, const float* inverse_rms,
                        const void* out_gradient, const void* sum_gradient, int64_t n_rows,
                        int64_t size, void* gradient, void* stream) {
  if (n_rows == 0) return;
  AddRmsNormGradientKernel<<<Blocks(n_rows * kWarp), kThreads, 0, Stream(stream)>>>(
      Pairs(sum), reinterpret_cast<const float2*>(weight), inverse_rms, Pairs(out_gradient),
      Pairs(sum_gradient), n_rows, static_cast<int>(size / 2), Pairs(gradient));
}

void RotateHeads(const void* x, const float* cos, const float* sin, int64_t n_rows,
                 int64_t n_positions, int64_t n_heads, int64_t n_rotated, int64_t dim, bool back,
                 void* out, void* stream) {
  const int64_t n = n_rows * n_heads * (dim / 2);
  if (n == 0) return;
  RotateHeadsKernel<<<Blocks(n), kThreads, 0, Stream(stream)>>>(
      static_cast<const __nv_bfloat16*>(x), cos, sin, n, n_positions, static_cast<int>(n_heads),
      static_cast<int>(n_rotated), static_cast<int>(dim / 2), back ? -1.0f : 1.0f,
      static_cast<__nv_bfloat16*>(out));
}

void SwiGlu(const void* gate_up, int64_t n_rows, int64_t size, void* out, void* stream) {
  const int64_t n = n_rows * (size / 2);
  if (n == 0) return;
  SwiGluKernel<<<Blocks(n), kThreads, 0, Stream(stream)>>>(Pairs(gate_up), n,
                                                           static_cast<int>(size / 2), Pairs(out));
}

void SwiGluGradient(const void* gate_up, const void* out_gradient, int64_t n_rows, int64_t size,
                    void* gradient, void* stream) {
  const int64_t n = n_rows * (size / 2);
  if (n == 0) return;
  SwiGluGradientKernel<<<Blocks(n), kThreads, 0, Stream(stream)>>>(
      Pairs(gate_up), Pairs(out_gradient), n, static_cast<int>(size / 2), Pairs(gradient));
}

}  // namespace fovea::train::kernels
