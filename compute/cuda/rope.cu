#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/sequences.cuh"

namespace fovea::compute::cuda {
namespace {

// A thread a pair of dimensions of a token, for all heads: they share the angle.
__global__ void RopeKernel(float* x, int64_t n_pairs, int n_heads, int half_dim,
                           const float* inverse_frequencies, int64_t first_position,
                           Sequences sequences) {
  FOVEA_FOR_EACH_ELEMENT(i, n_pairs) {
    int64_t token = i / half_dim;
    int64_t begin = 0;  // of the token's sequence
    if (sequences.n > 0) {
      token += sequences.begins[0];
      begin = sequences.begins[sequences.Find(token)];
    }
    const int pair = static_cast<int>(i % half_dim);
    // The angle in float32, as the published code has it.
    const float angle =
        __fmul_rn(static_cast<float>(first_position + token - begin), inverse_frequencies[pair]);
    float sin, cos;
    sincosf(angle, &sin, &cos);
    float* first = x + token * n_heads * 2 * half_dim + pair;
    for (int head = 0; head < n_heads; ++head, first += 2 * half_dim) {
      const float a = first[0];
      const float b = first[half_dim];
      first[0] = a * cos - b * sin;
      first[half_dim] = b * cos + a * sin;
    }
  }
}

}  // namespace

absl::Status Rope(Device& device, const RopeArgs& args) {
  const auto half_dim = static_cast<int>(args.x.dim(2) / 2);
  ForSequences(args.sequence_begins, [&](const Sequences& sequences) {
    const int64_t n_tokens =
        sequences.n > 0 ? sequences.begins[sequences.n] - sequences.begins[0] : args.x.dim(0);
    const int64_t n_pairs = n_tokens * half_dim;
    RopeKernel<<<ElementBlocks(n_pairs), kElementThreads, 0, AsCuda(device).stream()>>>(
        args.x.As<float>(), n_pairs, static_cast<int>(args.x.dim(1)), half_dim,
        args.inverse_frequencies.As<float>(), args.first_position, sequences);
  });
  return LaunchStatus("Rope");
}

}  // namespace fovea::compute::cuda
