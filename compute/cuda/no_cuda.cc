// What compute/cuda/ops.h declares, in a build without CUDA.
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

absl::Status NoCuda() {
  return absl::UnimplementedError(
      "this build of fovea has no CUDA part: use device 'cpu', or build with -DFOVEA_CUDA=on where "
      "CUDA 12.4 or later is installed");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateDevice(int, int) { return NoCuda(); }
absl::Status RmsNorm(Device&, const RmsNormArgs&) { return NoCuda(); }
absl::Status QkNorm(Device&, const QkNormArgs&) { return NoCuda(); }
absl::Status SiluMul(Device&, const SiluMulArgs&) { return NoCuda(); }
absl::Status Rope(Device&, const RopeArgs&) { return NoCuda(); }
absl::Status Convert(Device&, const ConvertArgs&) { return NoCuda(); }
absl::Status Embedding(Device&, const EmbeddingArgs&) { return NoCuda(); }
absl::Status Attention(Device&, const AttentionArgs&) { return NoCuda(); }
absl::Status MergePartials(Device&, const MergePartialsArgs&) { return NoCuda(); }
absl::Status MemoryAttention(Device&, const MemoryAttentionArgs&) { return NoCuda(); }
absl::Status CodedMemoryAttention(Device&, const CodedMemoryAttentionArgs&) { return NoCuda(); }
absl::Status KeptAttention(Device&, const KeptAttentionArgs&) { return NoCuda(); }
absl::Status EncodeKeys(Device&, const EncodeKeysArgs&) { return NoCuda(); }
absl::Status IndexQueries(Device&, const IndexQueriesArgs&) { return NoCuda(); }
absl::StatusOr<std::unique_ptr<Linear>> CreateLinear(Device&, const LinearWeights&) {
  return NoCuda();
}
absl::Status ForwardTogether(Device&, std::span<const Linear::Output>, const ConstView&) {
  return NoCuda();
}
absl::Status ForwardNormed(Device&, std::span<const Linear::Output>, const ConstView&,
                           const Linear::Norm&) {
  return NoCuda();
}
absl::Status ForwardGated(Device&, const Linear::Output&, const Linear::Output&, const ConstView&,
                          const Linear::Norm&) {
  return NoCuda();
}
absl::Status DecodeAttention(Device&, const DecodeAttentionArgs&) { return NoCuda(); }
absl::Status AppendRow(Device&, const AppendRowArgs&) { return NoCuda(); }
absl::Status ArgMax(Device&, const ArgMaxArgs&) { return NoCuda(); }

}  // namespace fovea::compute::cuda
