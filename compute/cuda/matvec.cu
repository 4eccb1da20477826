#include <algorithm>

#include "compute/cuda/matvec_kernel.cuh"
#include "compute/cuda/matvec_stream.h"

namespace fovea::compute::cuda {
namespace {

constexpr int kBlocksPerMultiprocessor = 8;  // at most

// Rows of x are read four floats at a time where the weights are read in chunks.
bool ReadsChunks(const MatVecArgs& args) {
  return HasChunks(args.dtype, args.in_features, args.weight) &&
         (args.up_weight == nullptr || HasChunks(args.dtype, args.in_features, args.up_weight)) &&
         reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
}

// Features that a warp computes at a time: of one row as many as leave enough warps for every
// multiprocessor, since x is read once for all of them.
int ChooseFeatures(const CudaDevice& device, const MatVecArgs& first, int64_t n_features) {
  if (first.n_rows > 1 || !ReadsChunks(first)) return 1;
  const int64_t most = first.up_weight != nullptr ? 2 : 4;  // a gated feature is two rows
  constexpr int64_t kLeastWarps = 10;                       // of a multiprocessor
  for (int64_t features = most; features > 1; features /= 2) {
    if (n_features / features >= kLeastWarps * device.n_multiprocessors()) {
      return static_cast<int>(features);
    }
  }
  return 1;
}

// Whether a ShortMatVecKernel takes products that are read in chunks: those of which every warp of
// the GPU has one feature or none.
bool IsShort(const CudaDevice& device, std::span<const MatVecArgs> products, int64_t n_features,
             const MatVecNorm& norm) {
  const MatVecArgs& first = products[0];
  const int64_t n_rows = first.up_weight != nullptr ? 2 : 1;
  const int64_t most =
      int64_t{kMatVecWarps} * kBlocksPerMultiprocessor * device.n_multiprocessors();
  return first.n_rows == 1 && first.in_features * n_rows <= kMostShortValues &&
         n_features <= most && reinterpret_cast<uintptr_t>(norm.weight) % sizeof(float4) == 0 &&
         std::all_of(products.begin(), products.end(),
                     [](const MatVecArgs& args) { return args.lora_u == nullptr; });
}

}  // namespace

absl::Status LaunchMatVecs(CudaDevice& device, std::span<const MatVecArgs> products,
                           const MatVecNorm& norm) {
  bool done[kMaxMatVecsTogether] = {};
  for (size_t first = 0; first < products.size(); ++first) {
    if (done[first]) continue;
    const DType dtype = products[first].dtype;
    const bool reads_chunks = ReadsChunks(products[first]);
    const auto belongs = [&](size_t i) {
      return !done[i] && products[i].dtype == dtype && ReadsChunks(products[i]) == reads_chunks;
    };
    MatVecs together = {};
    int n = 0;
    int64_t n_features = 0;
    for (size_t i = first; i < products.size(); ++i) {
      if (!belongs(i)) continue;
      done[i] = true;
      together.args[n++] = products[i];
      n_features += products[i].out_features;
    }
    const std::span<const MatVecArgs> group(together.args, static_cast<size_t>(n));
    together.is_short = reads_chunks && IsShort(device, group, n_features, norm);
    if (!together.is_short && TakesStreamMatVecs(device, group, norm)) {
      RETURN_IF_ERROR(LaunchStreamMatVecs(device, group, norm));
      continue;
    }
    together.n_features = together.is_short ? 1 : ChooseFeatures(device, group[0], n_features);
    // As many blocks as the GPU holds at once, each with as many rounds as the others: each makes
    // the norm for itself.
    const int64_t block_features = kMatVecWarps * together.n_features;
    const int64_t most = int64_t{kBlocksPerMultiprocessor} * device.n_multiprocessors();
    const int64_t rounds = (n_features + block_features * most - 1) / (block_features * most);
    unsigned end = 0;
    for (int i = 0; i < n; ++i) {
      end += static_cast<unsigned>((group[i].out_features + block_features * rounds - 1) /
                                   (block_features * rounds));
      together.end_block[i] = end;
    }
    absl::Status launched;
    VisitDType(dtype, [&]<DType kType>() {
      if (reads_chunks) {
        launched.Update(LaunchMatVecsOf<kType, true>(device, together, n, norm));
      } else if constexpr (IsPlain(kType)) {
        launched.Update(LaunchMatVecsOf<kType, false>(device, together, n, norm));
      }
    });
    RETURN_IF_ERROR(launched);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
