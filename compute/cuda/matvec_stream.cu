// A step of a large model is a chain of products that each read more weights than the caches hold.
// Memory is idle wherever one of them ends and the next one waits for its input, unless weights are
// on their way meanwhile: so a block has nearly all of a multiprocessor's shared memory, begins
// when the one before it there ends, and fills it with weights while those elsewhere end and its
// input comes. Two blocks of one kernel on a multiprocessor leave another one idle: they do not
// fit.
#include <algorithm>

#include "compute/cuda/bulk_copy.cuh"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/matvec_stream.h"
#include "compute/cuda/rms_norm.cuh"
#include "compute/cuda/silu_mul.cuh"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 16;     // of a block
constexpr int kMinWarps = 12;  // of these, that have features
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kRuns = 2;           // of weights that a warp reads side by side
constexpr int kPieceBytes = 1024;  // of a run, that are copied at a time
constexpr int kMinPieces = 3;      // of a run, in shared memory
constexpr int kMaxPieces = 16;
// Of a run, on their way at a time: as much as keeps memory busy, and before x is there less, since
// what the kernel before reads and x wait behind it.
constexpr int kWindowBytes = 3 * kPieceBytes;
constexpr int kFirstWindowBytes = kPieceBytes;
constexpr int kLeftBytes = 2 * kPieceBytes;       // to be asked for when the next kernel may begin
constexpr int kNormQuads = 2;                     // of a thread, whose weights it has in registers
constexpr int64_t kMinBytes = int64_t{32} << 10;  // of a multiprocessor
constexpr int64_t kAlignment = 16;                // of a copy

struct Products {
  MatVecArgs args[kMaxMatVecsTogether];
  unsigned end_block[kMaxMatVecsTogether];
  int n_warps;   // of a block, that have features
  int n_pieces;  // of a ring
};

// Two runs of bytes on their way through a ring in shared memory, by a warp. Both are read at the
// same place; the second one may end before the first.
class Ring {
 public:
  // `ring`: [kRuns, n_pieces, kPieceBytes].
  __device__ Ring(const std::byte* first, const std::byte* second, int n_first, int n_second,
                  std::byte* ring, uint64_t* barriers, int n_pieces)
      : first_(first),
        second_(second),
        n_first_(n_first),
        n_second_(n_second),
        ring_(ring),
        barriers_(barriers),
        n_pieces_(n_pieces) {
    if (threadIdx.x % kWarpSize == 0) {
      for (int i = 0; i < n_pieces; ++i) InitBarrier(barriers + i);
      PublishBarriers();
    }
    __syncwarp();
  }

  // Asks for what comes first, and for more as it comes, until the ring is full or this barrier's
  // first phase has ended; null: for no more.
  __device__ void Fill(uint64_t* until) {
    while (true) {
      AskMore(kFirstWindowBytes);
      if (until == nullptr || asked_ >= min(n_first_, n_bytes())) return;
      while (__all_sync(kAllLanes, HasEnded(barriers_ + ready_piece_, parity_)) == 0) {
        if (__any_sync(kAllLanes, HasEnded(until, 0)) != 0) return;
      }
      PassPiece();
    }
  }
  // Until the first `end` bytes of both runs have been copied.
  __device__ void Await(int end) {
    AskMore(kWindowBytes);
#pragma unroll 1
    while (ready_ < end) {
      AwaitBarrier(barriers_ + ready_piece_, parity_);
      PassPiece();
    }
  }
  // What lies at a place of a run's ring.
  __device__ const std::byte* bytes(int run, int place) const {
    return ring_ + run * n_bytes() + place;
  }
  __device__ int n_bytes() const { return n_pieces_ * kPieceBytes; }
  // Bytes of a run that are not on their way yet.
  __device__ int n_left() const { return n_first_ - asked_; }

  // No lane reads the first `end` bytes any more.
  __device__ void Release(int end) {
    __syncwarp();
    released_ = end / kPieceBytes * kPieceBytes;
  }

 private:
  __device__ void PassPiece() {
    ready_ += kPieceBytes;
    if (++ready_piece_ == n_pieces_) {
      ready_piece_ = 0;
      parity_ ^= 1;
    }
  }
  __device__ void AskMore(int window_bytes) {
    const int end = min(n_first_, min(released_ + n_bytes(), ready_ + window_bytes));
#pragma unroll 1
    while (asked_ < end) {
      if (threadIdx.x % kWarpSize == 0) {
        const int n_first = min(kPieceBytes, n_first_ - asked_);
        const int n_second = max(0, min(kPieceBytes, n_second_ - asked_));
        uint64_t* const barrier = barriers_ + asked_piece_;
        std::byte* const to = ring_ + asked_piece_ * kPieceBytes;
        ExpectBytes(barrier, n_first + n_second);
        CopyBulk(to, first_ + asked_, n_first, barrier);
        if (n_second > 0) CopyBulk(to + n_bytes(), second_ + asked_, n_second, barrier);
      }
      asked_ += kPieceBytes;
      if (++asked_piece_ == n_pieces_) asked_piece_ = 0;
    }
  }

  const std::byte* const first_;
  const std::byte* const second_;
  const int n_first_, n_second_;
  std::byte* const ring_;
  uint64_t* const barriers_;  // [n_pieces]
  const int n_pieces_;
  int asked_ = 0, asked_piece_ = 0;
  int ready_ = 0, ready_piece_ = 0;
  int released_ = 0;
  uint32_t parity_ = 0;
};

// x = norm(x), in shared memory; as NormRow, whose threads the first ones are.
__device__ inline void NormInput(const MatVecNorm& norm, int n,
                                 const float4 (&norm_weights)[kNormQuads], float4* x, float* sums) {
  float sum = 0.0f;
  if (threadIdx.x < kNormThreads) {
#pragma unroll 4
    for (int i = threadIdx.x; i < n / 4; i += kNormThreads) AddSquares(x[i], sum);
  }
  const float factor = NormFactor(sum, n, norm.eps, sums);
#pragma unroll
  for (int j = 0; j < kNormQuads; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kThreads;
    if (i < n / 4) x[i] = Normed(x[i], factor, norm_weights[j]);
  }
  const auto* const weights = reinterpret_cast<const float4*>(norm.weight);
  for (int i = threadIdx.x + kNormQuads * kThreads; i < n / 4; i += kThreads) {
    x[i] = Normed(x[i], factor, weights[i]);
  }
  __syncthreads();
}

// A block some features of a product, a warp some of these, one after another in two runs: the
// first and the second half of them, or of gated ones the gates and what they are multiplied with.
// The first warp waits for the kernel before and fetches x. Sums go over a row's chunks as in any
// kernel of products.
template <DType kType, bool kGated>
__global__ void __launch_bounds__(kThreads, 2)
    StreamMatVecKernel(const __grid_constant__ Products products, MatVecNorm norm) {
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ float norm_sums[kWarpSize];
  constexpr int kChunkBytes = 8 * (kType == DType::kF32 ? 4 : 2);
  constexpr int kChunksAtOnce = 64 / kChunkBytes;  // of a lane and a run
  // What is awaited at once has been asked for, and has room.
  static_assert(kChunksAtOnce * kWarpSize * kChunkBytes <= kWindowBytes);
  static_assert(kChunksAtOnce * kWarpSize * kChunkBytes <= (kMinPieces - 1) * kPieceBytes);
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int64_t n_blocks = products.end_block[product] - first_block;
  const int64_t block = blockIdx.x - first_block;
  const int64_t block_begin = args.out_features * block / n_blocks;
  const auto block_features =
      static_cast<int>(args.out_features * (block + 1) / n_blocks - block_begin);
  const int n_warps = products.n_warps;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t begin = block_begin + block_features * min(warp, n_warps) / n_warps;
  const int n_features =
      static_cast<int>(block_begin + block_features * min(warp + 1, n_warps) / n_warps - begin);
  const int n_first = kGated ? n_features : (n_features + 1) / 2;
  const int n_second = kGated ? n_features : n_features / 2;
  const int64_t second = kGated ? begin : begin + n_first;
  const auto row_bytes = static_cast<int>(args.row_bytes);
  const auto n = static_cast<int>(args.in_features);
  const int n_pieces = products.n_pieces;
  // [x | rings | barriers]
  auto* const x = reinterpret_cast<float4*>(shared);
  std::byte* const rings = shared + n * sizeof(float);
  const int ring_bytes = n_pieces * kPieceBytes;
  auto* const barriers = reinterpret_cast<uint64_t*>(rings + n_warps * kRuns * ring_bytes);
  uint64_t* const x_barrier = barriers + n_warps * n_pieces;
  if (threadIdx.x == 0) {
    InitBarrier(x_barrier);
    PublishBarriers();
  }
  __syncthreads();
  float4 norm_weights[kNormQuads];
#pragma unroll
  for (int j = 0; j < kNormQuads; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kThreads;
    if (norm.weight != nullptr && i < n / 4) {
      norm_weights[j] = reinterpret_cast<const float4*>(norm.weight)[i];
    }
  }
  Ring ring(args.weight + begin * row_bytes,
            (kGated ? args.up_weight : args.weight) + second * row_bytes, n_first * row_bytes,
            n_second * row_bytes, rings + warp * kRuns * ring_bytes, barriers + warp * n_pieces,
            warp < n_warps ? n_pieces : 0);
  if (warp == 0) {
    ring.Fill(nullptr);
    AwaitKernelBefore();
    if (lane == 0) {
      const auto n_bytes = static_cast<uint32_t>(n * sizeof(float));
      ExpectBytes(x_barrier, n_bytes);
      CopyBulk(shared, reinterpret_cast<const std::byte*>(args.x), n_bytes, x_barrier);
    }
    __syncwarp();
  } else {
    ring.Fill(x_barrier);
  }
  AwaitBarrier(x_barrier, 0);
  AwaitKernelBefore();  // it has ended: this makes what it wrote visible to all
  if (norm.weight != nullptr) NormInput(norm, n, norm_weights, x, norm_sums);
  const auto allow_next = [&] {
    if (ring.n_left() <= kLeftBytes) AllowNextKernel();
  };
  allow_next();
  // Of eight lanes that read x together, four read the second quads of their chunks first: no two
  // read the same bank.
  const bool swaps = lane % 8 >= 4;
  // Where the next chunk of the lane lies in the ring.
  int place = lane * kChunkBytes;
  const int n_chunks = n / 8;
#pragma unroll 1
  for (int i = 0; i < n_first; ++i) {
    // Lane 0 stores a feature, and lane 1 the one of the second run.
    const int64_t feature = lane == 0 ? begin + i : second + i;
    const bool stores = lane == 0 || (!kGated && lane == 1 && i < n_second);
    const float residual = stores && args.add_to_out ? __ldcg(args.out + feature) : 0.0f;
    const float bias = stores && args.bias != nullptr ? args.bias[feature] : 0.0f;
    float sums[kRuns] = {};
#pragma unroll 1
    for (int done = 0; done < n_chunks; done += kChunksAtOnce * kWarpSize) {
      const int begin_of = i * row_bytes + done * kChunkBytes;
      const int end =
          i * row_bytes + min((done + kChunksAtOnce * kWarpSize) * kChunkBytes, row_bytes);
      ring.Await(end);
      const auto add = [&](int j, int chunk) {
        const float4 one = x[2 * chunk + (swaps ? 1 : 0)];
        const float4 other = x[2 * chunk + (swaps ? 0 : 1)];
        const int at = place + j * kWarpSize * kChunkBytes;
        const int own = at < ring_bytes ? at : at - ring_bytes;
        const float4 a = swaps ? other : one;
        const float4 b = swaps ? one : other;
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
          AddChunk(ChunkAt<kType>(ring.bytes(r, own), chunk), a, b, sums[r]);
        }
      };
      if (done + kChunksAtOnce * kWarpSize <= n_chunks) {
#pragma unroll
        for (int j = 0; j < kChunksAtOnce; ++j) add(j, done + j * kWarpSize + lane);
      } else {
#pragma unroll 1
        for (int j = 0; j < kChunksAtOnce; ++j) {
          if (done + j * kWarpSize + lane < n_chunks) add(j, done + j * kWarpSize + lane);
        }
      }
      place += end - begin_of;
      if (place >= ring_bytes) place -= ring_bytes;
      ring.Release(end);
      allow_next();
    }
    const float first_sum = GroupSum(sums[0]);
    const float second_sum = GroupSum(sums[1]);
    if (!stores) continue;
    float sum = kGated ? SiluMulOf(first_sum, second_sum) : lane == 0 ? first_sum : second_sum;
    if (args.bias != nullptr) sum += bias;
    args.out[feature] = args.add_to_out ? residual + sum : sum;
  }
}

// Shared memory of a block: of most of it, so that a multiprocessor has one block of one kernel,
// but for those of the attention between two.
int SharedBytes(const CudaDevice& device) {
  constexpr int kOfOthers = 20 << 10;
  return device.max_shared_bytes() - kOfOthers;
}

int64_t PiecesThatFit(const CudaDevice& device, int64_t in_features, int n_warps) {
  const int64_t piece_bytes =
      n_warps * (kRuns * kPieceBytes + static_cast<int64_t>(sizeof(uint64_t)));
  const int64_t room = SharedBytes(device) - in_features * static_cast<int64_t>(sizeof(float)) -
                       static_cast<int64_t>(sizeof(uint64_t));
  return std::min<int64_t>(room / piece_bytes, kMaxPieces);
}

// Of a block, as many as have as much to do as one another: the rest of their features is what the
// last of them do while memory waits.
int ChooseWarps(int64_t block_features, bool is_gated) {
  const int64_t at_once = is_gated ? 1 : kRuns;
  int best = kWarps;
  int64_t least = INT64_MAX;
  for (int n = kWarps; n >= kMinWarps; --n) {
    const int64_t own = (block_features + n - 1) / n;
    const int64_t rounds = (own + at_once - 1) / at_once;
    if (n * rounds >= least) continue;
    least = n * rounds;
    best = n;
  }
  return best;
}

}  // namespace

bool TakesStreamMatVecs(const CudaDevice& device, std::span<const MatVecArgs> products,
                        const MatVecNorm& norm) {
  const auto is_aligned = [](const void* data) {
    return reinterpret_cast<uintptr_t>(data) % kAlignment == 0;
  };
  const MatVecArgs& first = products[0];
  int64_t n_bytes = 0;
  for (const MatVecArgs& args : products) {
    // A run of a warp is counted in an int.
    if (args.dtype != first.dtype || args.n_rows != 1 || args.lora_u != nullptr ||
        args.row_bytes % kAlignment != 0 || !is_aligned(args.weight) ||
        !is_aligned(args.up_weight) || args.out_features * args.row_bytes > INT32_MAX) {
      return false;
    }
    n_bytes += args.out_features * args.row_bytes * (args.up_weight != nullptr ? 2 : 1);
  }
  return device.compute_capability() >= 90 && IsPlain(first.dtype) && first.in_features % 8 == 0 &&
         is_aligned(first.x) && is_aligned(norm.weight) &&
         PiecesThatFit(device, first.in_features, kWarps) >= kMinPieces &&
         n_bytes >= kMinBytes * device.n_multiprocessors();
}

absl::Status LaunchStreamMatVecs(CudaDevice& device, std::span<const MatVecArgs> products,
                                 const MatVecNorm& norm) {
  Products together = {};
  // As few features a block as leave every product's blocks a multiprocessor each.
  const auto n_blocks = [&](int64_t block_features) {
    int64_t n = 0;
    for (const MatVecArgs& args : products) {
      n += (args.out_features + block_features - 1) / block_features;
    }
    return n;
  };
  int64_t block_features = 1;
  for (const MatVecArgs& args : products) block_features += args.out_features;
  block_features /= device.n_multiprocessors();
  block_features = std::max<int64_t>(block_features, 1);
  const int64_t most =
      std::max<int64_t>(device.n_multiprocessors(), static_cast<int64_t>(products.size()));
  while (n_blocks(block_features) > most) ++block_features;
  together.n_warps = ChooseWarps(block_features, products[0].up_weight != nullptr);
  together.n_pieces =
      static_cast<int>(PiecesThatFit(device, products[0].in_features, together.n_warps));
  unsigned end = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    end += static_cast<unsigned>((products[i].out_features + block_features - 1) / block_features);
    together.args[i] = products[i];
    together.end_block[i] = end;
  }
  const auto shared_bytes = static_cast<size_t>(SharedBytes(device));
  const auto launch = [&]<DType kType, bool kGated>() -> absl::Status {
    const auto kernel = StreamMatVecKernel<kType, kGated>;
    RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              static_cast<int>(shared_bytes)),
                         "Linear");
    return LaunchDependent(device, "Linear", kernel, dim3(end), kThreads, shared_bytes, together,
                           norm);
  };
  const auto launch_of = [&]<DType kType>() {
    return products[0].up_weight != nullptr ? launch.template operator()<kType, true>()
                                            : launch.template operator()<kType, false>();
  };
  switch (products[0].dtype) {
    case DType::kF32:
      return launch_of.template operator()<DType::kF32>();
    case DType::kF16:
      return launch_of.template operator()<DType::kF16>();
    default:
      return launch_of.template operator()<DType::kBF16>();
  }
}

}  // namespace fovea::compute::cuda
