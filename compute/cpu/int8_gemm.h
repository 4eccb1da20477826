// Products of many rows with weights, both as 8-bit integers; one thread a call: callers split rows
// and features over the threads of their device.
//
// Both are quantised by groups of kInt8Group values along the inner dimension, each group with a
// scale of its own, so that an outlier spoils only the precision of its neighbours:
//   x[row, i] ≈ x_scale[row, group] · x_q,   W[feature, i] ≈ w_scale[feature, group] · w_q,
//   out = Σ over groups of x_scale · w_scale · Σ x_q · w_q,   |x_q|, |w_q| ≤ 127
// The inner sums are exact, the outer ones float32 in the order of the groups. A row of the result
// depends on that row of x and on the weights alone, whatever rows and threads compute beside it,
// and is the same on every processor that multiplies and adds in one rounding (x86-64 from AVX2
// on, ARM).
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea::compute::cpu {

// Values that share a scale. Divides the widths of small models (576, 1536); elsewhere the last
// group is shorter. SmolLM2-135M on book text: perplexity grows by 1.2% with groups of 192, by 0.4%
// with 96 and with 64; the products take a tenth longer with each step.
inline constexpr int64_t kInt8Group = 96;

// Features that a call multiplies together; weights are packed by panels of so many.
inline constexpr int64_t kInt8PanelFeatures = 64;

// Whether products are computed in vectors, as on every x86-64 and 64-bit ARM. Elsewhere everything
// here works and is slow.
bool HasInt8Kernel();

// Bytes of the packed panel of [kInt8PanelFeatures, k]; a multiple of 64.
size_t Int8PanelBytes(int64_t k);

// weight [n_features ≤ kInt8PanelFeatures, k], float → packed, 64-byte aligned, Int8PanelBytes(k).
void PackInt8Panel(const float* weight, int64_t n_features, int64_t k, std::byte* packed);

// Rows of x, quantised: a view of Int8RowsBytes of memory, 64-byte aligned.
struct Int8Rows {
  int64_t k = 0;
  int64_t n_groups = 0;
  int64_t stride = 0;        // bytes between rows of values: k rounded up to 4, the rest zeros
  int8_t* values = nullptr;  // [rows, stride]
  float* scales = nullptr;   // [rows, n_groups]
  int32_t* starts = nullptr;  // [rows, n_groups]: −128 · sum of the group's values (see the source)
};
size_t Int8RowsBytes(int64_t n_rows, int64_t k);
Int8Rows MakeInt8Rows(int64_t n_rows, int64_t k, std::byte* memory);

// x [.., k]: its rows [begin, end) → those of `rows`. Different rows may be quantised by different
// threads. A group that is not finite gives products that are not finite.
void QuantizeInt8Rows(const float* x, int64_t begin, int64_t end, const Int8Rows& rows);

// out[row, f] = x[row, :]·W[f, :] (+ bias[f]) (+ out[row, f]) for rows [begin, end) and the
// features of one panel. Rows of out lie out_stride floats apart.
struct Int8Product {
  const Int8Rows* rows = nullptr;
  const std::byte* panel = nullptr;
  int64_t n_features = 0;       // ≤ kInt8PanelFeatures
  const float* bias = nullptr;  // [n_features] or null
  bool add_to_out = false;
  float* out = nullptr;  // of row 0
  int64_t out_stride = 0;
};
void MultiplyInt8(const Int8Product& product, int64_t begin, int64_t end);

// The same without special instructions: what tests compare with.
void MultiplyInt8Plain(const Int8Product& product, int64_t begin, int64_t end);

}  // namespace fovea::compute::cpu
