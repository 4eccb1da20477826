// The CPU implementations of the ops that compute/*.h declare. Arguments were checked by the
// caller; the device is a CpuDevice.
#pragma once

#include <span>

#include "compute/attention.h"
#include "compute/coded_memory_attention.h"
#include "compute/convert.h"
#include "compute/cpu/cpu_device.h"
#include "compute/embedding.h"
#include "compute/index_queries.h"
#include "compute/kept_attention.h"
#include "compute/linear.h"
#include "compute/memory_attention.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "compute/top_k_attention.h"

namespace fovea::compute::cpu {

absl::Status RmsNorm(CpuDevice& device, const RmsNormArgs& args);
absl::Status SiluMul(CpuDevice& device, const SiluMulArgs& args);
absl::Status Rope(CpuDevice& device, const RopeArgs& args);
absl::Status Convert(CpuDevice& device, const ConvertArgs& args);
absl::Status Embedding(CpuDevice& device, const EmbeddingArgs& args);
// Of one sequence each.
absl::Status AttentionTogether(CpuDevice& device, std::span<const AttentionArgs> attentions);
absl::Status TopKAttention(CpuDevice& device, const TopKAttentionArgs& args);
absl::Status TopKWeights(CpuDevice& device, const TopKWeightsArgs& args);
absl::Status MergePartials(CpuDevice& device, const MergePartialsArgs& args);
absl::Status MemoryAttention(CpuDevice& device, const MemoryAttentionArgs& args);
absl::Status CodedMemoryAttention(CpuDevice& device, const CodedMemoryAttentionArgs& args);
absl::Status KeptAttention(CpuDevice& device, const KeptAttentionArgs& args);
absl::Status EncodeKeys(CpuDevice& device, const EncodeKeysArgs& args);
absl::Status IndexQueries(CpuDevice& device, const IndexQueriesArgs& args);
absl::StatusOr<std::unique_ptr<Linear>> CreateLinear(CpuDevice& device,
                                                     const LinearWeights& weights);
absl::Status ForwardTogether(CpuDevice& device, std::span<const Linear::Output> outputs,
                             const ConstView& x);

}  // namespace fovea::compute::cpu
