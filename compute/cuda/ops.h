// The CUDA implementations of the ops that compute/*.h declare, without a header of CUDA's: what
// dispatches to them compiles everywhere. Arguments were checked by the caller; the device is a
// CudaDevice. In a build without CUDA all of them return Unimplemented (no_cuda.cc).
#pragma once

#include <memory>
#include <span>

#include "compute/append_row.h"
#include "compute/arg_max.h"
#include "compute/attention.h"
#include "compute/coded_memory_attention.h"
#include "compute/convert.h"
#include "compute/decode_attention.h"
#include "compute/embedding.h"
#include "compute/index_queries.h"
#include "compute/kept_attention.h"
#include "compute/linear.h"
#include "compute/memory_attention.h"
#include "compute/qk_norm.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"

namespace fovea::compute::cuda {

// The GPU of this number, as CUDA counts them. NotFound for a number that there is none of;
// Unavailable, saying what to do, where no GPU can be used: no driver, one that is too old, a GPU
// that this build has no code for.
absl::StatusOr<std::unique_ptr<Device>> CreateDevice(int number, int n_threads);

absl::Status RmsNorm(Device& device, const RmsNormArgs& args);
absl::Status QkNorm(Device& device, const QkNormArgs& args);
absl::Status SiluMul(Device& device, const SiluMulArgs& args);
absl::Status Rope(Device& device, const RopeArgs& args);
absl::Status Convert(Device& device, const ConvertArgs& args);
absl::Status Embedding(Device& device, const EmbeddingArgs& args);
absl::Status Attention(Device& device, const AttentionArgs& args);
absl::Status MergePartials(Device& device, const MergePartialsArgs& args);
absl::Status DecodeAttention(Device& device, const DecodeAttentionArgs& args);
absl::Status AppendRow(Device& device, const AppendRowArgs& args);
absl::Status ArgMax(Device& device, const ArgMaxArgs& args);
absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args);
absl::Status CodedMemoryAttention(Device& device, const CodedMemoryAttentionArgs& args);
absl::Status KeptAttention(Device& device, const KeptAttentionArgs& args);
absl::Status EncodeKeys(Device& device, const EncodeKeysArgs& args);
absl::Status IndexQueries(Device& device, const IndexQueriesArgs& args);
absl::StatusOr<std::unique_ptr<Linear>> CreateLinear(Device& device, const LinearWeights& weights);
absl::Status ForwardTogether(Device& device, std::span<const Linear::Output> outputs,
                             const ConstView& x);
absl::Status ForwardNormed(Device& device, std::span<const Linear::Output> outputs,
                           const ConstView& x, const Linear::Norm& norm);
absl::Status ForwardGated(Device& device, const Linear::Output& gate, const Linear::Output& up,
                          const ConstView& x, const Linear::Norm& norm);

}  // namespace fovea::compute::cuda
