#include "compute/append_row.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

constexpr int kThreads = 256;

struct Pieces {
  const uint32_t* data[kMaxRowPieces];
  int n_words[kMaxRowPieces];  // 0: there is none
};

// One block.
__global__ void AppendRowKernel(Pieces pieces, int64_t row_words, uint32_t* rows, int64_t n_rows,
                                int32_t* next_row, bool advances) {
  AllowNextKernel();
  AwaitKernelBefore();
  const int32_t row = *next_row;
  if (row < 0 || row >= n_rows) return;
  uint32_t* to = rows + row * row_words;
  for (int p = 0; p < kMaxRowPieces; ++p) {
    for (int i = threadIdx.x; i < pieces.n_words[p]; i += kThreads) to[i] = pieces.data[p][i];
    to += pieces.n_words[p];
  }
  __syncthreads();
  if (advances && threadIdx.x == 0) *next_row = row + 1;
}

}  // namespace

absl::Status AppendRow(Device& device, const AppendRowArgs& args) {
  Pieces pieces = {};
  int64_t row_words = 0;
  for (size_t p = 0; p < args.pieces.size(); ++p) {
    pieces.data[p] = static_cast<const uint32_t*>(args.pieces[p].data);
    pieces.n_words[p] = static_cast<int>(args.pieces[p].size_bytes / 4);
    row_words += pieces.n_words[p];
  }
  return LaunchDependent(AsCuda(device), "AppendRow", AppendRowKernel, dim3(1), kThreads, 0, pieces,
                         row_words, static_cast<uint32_t*>(args.rows), args.n_rows, args.next_row,
                         args.advances);
}

}  // namespace fovea::compute::cuda
