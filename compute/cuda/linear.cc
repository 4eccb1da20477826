#include "compute/linear.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/matvec.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/stored_rows.h"

namespace fovea::compute::cuda {
namespace {

// Where no copy is kept, so many bytes of converted weights at a time: products of fewer features
// would not fill a GPU.
constexpr int64_t kConvertedBytesAtOnce = int64_t{256} << 20;

// For a matrix product converted weights begin at whole memory transactions.
int64_t Aligned(int64_t size_bytes) { return (size_bytes + 255) / 256 * 256; }

class CudaLinear final : public Linear {
 public:
  CudaLinear(Device& device, const LinearWeights& weights, size_t row_bytes)
      : Linear(weights.name, weights.weight.dim(1), weights.weight.dim(0)),
        weights_(weights),
        row_bytes_(static_cast<int64_t>(row_bytes)),
        lora_rank_(weights.lora_a.is_none() ? 0 : weights.lora_a.dim(0)),
        dtype_(device.precision() == Precision::kBFloat16 && !weights.float32_only ? DType::kBF16
                                                                                   : DType::kF32),
        budget_(device.packed_weights()) {}

  ~CudaLinear() override {
    if (copy_.data<void>() != nullptr) budget_->Release(copy_.size_bytes());
  }

  absl::Status DoForward(Device& device, const ConstView& x, bool add_to_out,
                         const View& out) const override {
    CudaDevice& cuda = AsCuda(device);
    const int64_t n_rows = x.dim(0);
    if (n_rows <= kMaxMatVecRows) {
      const Output output{this, out};
      return Annotate(ForwardFew(cuda, {&output, 1}, x, add_to_out), name_);
    }
    return Annotate(ForwardMany(cuda, x, add_to_out, out.As<float>()), name_);
  }

  bool TakesBFloat16(int64_t n_tokens) const override {
    return dtype_ == DType::kBF16 && n_tokens > kMaxMatVecRows;
  }

  int64_t max_rows_as_alone() const override { return kMaxMatVecRows; }

  void DoPrepareSteps(Device& device) const override {
    // An error comes up with the first step.
    if (StepsUseMerged()) FindWeights(AsCuda(device)).status().IgnoreError();
  }

  // Up to kMaxMatVecRows rows; all outputs are CudaLinears.
  static absl::Status ForwardFew(CudaDevice& device, std::span<const Output> outputs,
                                 const ConstView& x, bool add_to_out, const MatVecNorm& norm = {}) {
    static_assert(kMaxTogether == kMaxMatVecsTogether);
    const int64_t n_rows = x.dim(0);
    int64_t total_rank = 0;
    std::vector<MatVecArgs> down, products;
    for (const Output& output : outputs) {
      const CudaLinear& l = Of(output);
      ASSIGN_OR_RETURN(MatVecArgs args, l.StepArgs(device, x, add_to_out, output.out));
      products.push_back(args);
      total_rank += args.lora_rank;
    }
    ASSIGN_OR_RETURN(std::byte* const scratch,
                     device.Scratch(static_cast<size_t>(n_rows * total_rank) * sizeof(float)));
    auto* u = reinterpret_cast<float*>(scratch);  // x·Aᵀ of each
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (products[i].lora_rank == 0) continue;
      const CudaLinear& l = Of(outputs[i]);
      down.push_back({.dtype = DType::kF32,
                      .weight = l.weights_.lora_a.As<std::byte>(),
                      .row_bytes = l.in_features_ * static_cast<int64_t>(sizeof(float)),
                      .in_features = l.in_features_,
                      .out_features = l.lora_rank_,
                      .x = x.As<float>(),
                      .n_rows = n_rows,
                      .out = u});
      products[i].lora_u = u;
      u += n_rows * l.lora_rank_;
    }
    RETURN_IF_ERROR(LaunchMatVecs(device, down, norm));
    return LaunchMatVecs(device, products, norm);
  }

  // gate.out = silu(x·gateᵀ)·(x·upᵀ) of one row in one kernel; false where the weights are not of
  // one kind, and nothing is computed.
  static absl::StatusOr<bool> ForwardGatedRow(CudaDevice& device, const Output& gate,
                                              const Output& up, const ConstView& x,
                                              const MatVecNorm& norm) {
    ASSIGN_OR_RETURN(MatVecArgs args, Of(gate).StepArgs(device, x, false, gate.out));
    ASSIGN_OR_RETURN(const MatVecArgs other, Of(up).StepArgs(device, x, false, up.out));
    if (args.dtype != other.dtype || args.row_bytes != other.row_bytes || args.lora_rank > 0 ||
        other.lora_rank > 0 || args.bias != nullptr || other.bias != nullptr) {
      return false;
    }
    args.up_weight = other.weight;
    RETURN_IF_ERROR(LaunchMatVecs(device, {&args, 1}, norm));
    return true;
  }

 private:
  static const CudaLinear& Of(const Output& output) {
    return static_cast<const CudaLinear&>(*output.linear);
  }

  // Whether few rows, too, are multiplied with weights that have the low-rank update merged in:
  // where reading these, which are larger, takes no longer than a second kernel takes to start.
  bool StepsUseMerged() const {
    constexpr int64_t kMoreBytes = int64_t{8} << 20;
    return lora_rank_ > 0 && weights_.keeps_copy &&
           out_features_ * (in_features_ * value_bytes() - row_bytes_) <= kMoreBytes;
  }

  // Of few rows, but for lora_u.
  absl::StatusOr<MatVecArgs> StepArgs(CudaDevice& device, const ConstView& x, bool add_to_out,
                                      const View& out) const {
    MatVecArgs args{.dtype = weights_.weight.dtype(),
                    .weight = weights_.weight.As<std::byte>(),
                    .row_bytes = row_bytes_,
                    .in_features = in_features_,
                    .out_features = out_features_,
                    .x = x.As<float>(),
                    .n_rows = x.dim(0),
                    .bias = weights_.bias.As<float>(),
                    .add_to_out = add_to_out,
                    .out = out.As<float>()};
    if (StepsUseMerged()) {
      ASSIGN_OR_RETURN(const void* const merged, FindWeights(device));
      if (merged != nullptr) {
        args.dtype = dtype_;
        args.weight = static_cast<const std::byte*>(merged);
        args.row_bytes = in_features_ * value_bytes();
        return args;
      }
    }
    if (lora_rank_ > 0) {
      args.lora_b = weights_.lora_b.As<float>();
      args.lora_rank = lora_rank_;
      args.lora_scale = weights_.lora_scale;
    }
    return args;
  }

  int64_t value_bytes() const { return Traits(dtype_).block_bytes; }

  absl::Status ForwardMany(CudaDevice& device, const ConstView& x, bool add_to_out,
                           float* out) const {
    const int64_t n_rows = x.dim(0);
    ASSIGN_OR_RETURN(const void* const kept, FindWeights(device));
    // Scratch: [x in bfloat16, where it is not | some features' weights].
    const int64_t x_bytes =
        dtype_ != x.dtype() ? Aligned(n_rows * in_features_ * value_bytes()) : 0;
    const int64_t feature_bytes = in_features_ * value_bytes();
    // One product, whatever is kept, where its weights fit: sums then do not depend on it.
    const int64_t features_at_once =
        kept != nullptr
            ? out_features_
            : std::clamp<int64_t>(kConvertedBytesAtOnce / feature_bytes, 1, out_features_);
    const int64_t weight_bytes = kept != nullptr ? 0 : features_at_once * feature_bytes;
    ASSIGN_OR_RETURN(std::byte* const scratch,
                     device.Scratch(static_cast<size_t>(x_bytes + weight_bytes)));
    const void* rows = x.data();
    if (dtype_ != x.dtype()) {
      LaunchRound(x.As<float>(), n_rows * in_features_, scratch, device.stream());
      rows = scratch;
    }
    // Products of some features lie apart in `out`; they are made in one place first.
    if (features_at_once < out_features_) {
      return ForwardInPortions(device, rows, n_rows, features_at_once, scratch + x_bytes,
                               add_to_out, out);
    }
    const void* weights = kept;
    if (kept == nullptr) {
      ConvertRows(device, 0, out_features_, scratch + x_bytes);
      weights = scratch + x_bytes;
    }
    RETURN_IF_ERROR(device.gemm_plans().Run(device, device.stream(),
                                            {.dtype = dtype_,
                                             .x = rows,
                                             .w = weights,
                                             .n_rows = n_rows,
                                             .n = out_features_,
                                             .k = in_features_,
                                             .add_to_out = add_to_out,
                                             .out = out}));
    LaunchAddBias(device, n_rows, out_features_, nullptr, 0, false, out);
    return LaunchStatus("Linear");
  }

  absl::Status ForwardInPortions(CudaDevice& device, const void* rows, int64_t n_rows,
                                 int64_t features_at_once, std::byte* converted, bool add_to_out,
                                 float* out) const {
    ASSIGN_OR_RETURN(
        const Buffer product,
        device.Allocate(static_cast<size_t>(n_rows * features_at_once) * sizeof(float)));
    for (int64_t begin = 0; begin < out_features_; begin += features_at_once) {
      const int64_t n = std::min(features_at_once, out_features_ - begin);
      ConvertRows(device, begin, n, converted);
      RETURN_IF_ERROR(device.gemm_plans().Run(device, device.stream(),
                                              {.dtype = dtype_,
                                               .x = rows,
                                               .w = converted,
                                               .n_rows = n_rows,
                                               .n = n,
                                               .k = in_features_,
                                               .out = product.data<float>()}));
      LaunchAddBias(device, n_rows, n, product.data<float>(), begin, add_to_out, out);
    }
    return LaunchStatus("Linear");
  }

  // out[:, begin … begin + n) (+)= product (null: what is there) + bias.
  void LaunchAddBias(CudaDevice& device, int64_t n_rows, int64_t n, const float* product,
                     int64_t begin, bool add_to_out, float* out) const {
    const auto* const bias = weights_.bias.As<float>();
    if (product == nullptr && bias == nullptr) return;
    LaunchStoreProduct({.product = product,
                        .n_rows = n_rows,
                        .n = n,
                        .bias = bias != nullptr ? bias + begin : nullptr,
                        .add_to_out = add_to_out,
                        .out = out + begin,
                        .out_stride = out_features_},
                       device.stream());
  }

  // W + lora_scale·B·A of some features → to, in dtype_.
  void ConvertRows(CudaDevice& device, int64_t begin, int64_t n, void* to) const {
    StoredRowsArgs args{.dtype = weights_.weight.dtype(),
                        .rows = weights_.weight.As<std::byte>() + begin * row_bytes_,
                        .row_bytes = row_bytes_,
                        .n_values = in_features_,
                        .n_rows = n,
                        .out = to,
                        .to_bf16 = dtype_ == DType::kBF16};
    if (lora_rank_ > 0) {
      args.lora_a = weights_.lora_a.As<float>();
      args.lora_b = weights_.lora_b.As<float>() + begin * lora_rank_;
      args.lora_rank = lora_rank_;
      args.lora_scale = weights_.lora_scale;
    }
    LaunchStoredRows(args, device.stream());
  }

  // What many rows are multiplied with: the stored weights where they are what is wanted already,
  // else a copy, made on first use; null where there is no room for one or none is wanted.
  absl::StatusOr<const void*> FindWeights(CudaDevice& device) const {
    if (weights_.weight.dtype() == dtype_ && lora_rank_ == 0) return weights_.weight.data();
    if (!weights_.keeps_copy) return nullptr;
    if (is_decided_.load(std::memory_order_acquire)) return copy_.data<void>();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_decided_.load(std::memory_order_relaxed)) return copy_.data<void>();
    const auto size_bytes = static_cast<size_t>(in_features_ * out_features_ * value_bytes());
    if (budget_->TryReserve(size_bytes)) {
      absl::StatusOr<Buffer> copy = device.Allocate(size_bytes);
      if (copy.ok()) {
        ConvertRows(device, 0, out_features_, copy->data<void>());
        // A kernel may read its weights before the one before it has ended (dependent_launch.cuh).
        RETURN_IF_ERROR(device.Synchronize());
        copy_ = *std::move(copy);
      } else {
        budget_->Release(size_bytes);
        if (!absl::IsResourceExhausted(copy.status())) return copy.status();
      }
    }
    is_decided_.store(true, std::memory_order_release);
    return copy_.data<void>();
  }

  const LinearWeights weights_;
  const int64_t row_bytes_;
  const int64_t lora_rank_;  // 0: none
  const DType dtype_;        // of products of many rows
  const std::shared_ptr<MemoryBudget> budget_;

  mutable std::mutex mutex_;
  mutable std::atomic<bool> is_decided_{false};  // copy_ does not change any more
  mutable Buffer copy_;                          // [out_features, in_features] of dtype_
};

}  // namespace

absl::StatusOr<std::unique_ptr<Linear>> CreateLinear(Device& device, const LinearWeights& weights) {
  ASSIGN_OR_RETURN(const size_t row_bytes, RowBytes(weights.weight.dtype(), weights.weight.dim(1)));
  return std::make_unique<CudaLinear>(device, weights, row_bytes);
}

absl::Status ForwardTogether(Device& device, std::span<const Linear::Output> outputs,
                             const ConstView& x) {
  if (x.dim(0) <= kMaxMatVecRows) return CudaLinear::ForwardFew(AsCuda(device), outputs, x, false);
  for (const Linear::Output& output : outputs) {
    RETURN_IF_ERROR(output.linear->Forward(device, x, false, output.out));
  }
  return absl::OkStatus();
}

absl::Status ForwardNormed(Device& device, std::span<const Linear::Output> outputs,
                           const ConstView& x, const Linear::Norm& norm) {
  if (x.dim(0) <= kMaxMatVecRows && CanNorm(x.dim(0), x.dim(1))) {
    return CudaLinear::ForwardFew(AsCuda(device), outputs, x, false,
                                  {norm.weight.As<float>(), norm.eps});
  }
  RETURN_IF_ERROR(
      cuda::RmsNorm(device, {.x = x, .weight = norm.weight, .out = norm.normed, .eps = norm.eps}));
  return ForwardTogether(device, outputs, norm.normed);
}

absl::Status ForwardGated(Device& device, const Linear::Output& gate, const Linear::Output& up,
                          const ConstView& x, const Linear::Norm& norm) {
  if (x.dim(0) == 1 && CanNorm(1, x.dim(1))) {
    ASSIGN_OR_RETURN(const bool is_done,
                     CudaLinear::ForwardGatedRow(AsCuda(device), gate, up, x,
                                                 {norm.weight.As<float>(), norm.eps}));
    if (is_done) return absl::OkStatus();
  }
  const Linear::Output outputs[] = {gate, up};
  RETURN_IF_ERROR(ForwardNormed(device, outputs, x, norm));
  return cuda::SiluMul(device, {.gate = gate.out, .up = up.out, .out = gate.out});
}

}  // namespace fovea::compute::cuda
