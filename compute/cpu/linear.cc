// A linear layer on the CPU: few rows of x by the stored weights, as they lie or in tiles; many
// rows by packed panels, in float32 or in 8 bits. A low-rank update is added to the product of few
// rows, and merged into the panels.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "compute/cpu/aligned_array.h"
#include "compute/cpu/grain.h"
#include "compute/cpu/int8_gemm.h"
#include "compute/cpu/loop_status.h"
#include "compute/cpu/lora_factor.h"
#include "compute/cpu/matvec.h"
#include "compute/cpu/ops.h"
#include "compute/cpu/row_tiles.h"

namespace fovea::compute::cpu {
namespace {

// Up to this many rows the stored weights are read directly: reading a packed float copy, up to
// eight times as large, takes longer. Plain types are as large as their copy or half as large, and
// are converted again for every four rows. Measured on a Zen 4.
constexpr int64_t kMaxDirectTokens = 12;
constexpr int64_t kMaxDirectTokensQuantised = 32;

// Weights are packed and multiplied by panels of this many output features; the last is smaller.
constexpr int64_t kPanelFeatures = 576;

// Where no copy is kept, each thread converts a panel at a time, to floats and then packed: panels
// of whole tiles that stay in its cache, measured on a Zen 4.
constexpr int64_t kUnkeptPanelBytes = int64_t{5} << 19;
int64_t UnkeptPanelFeatures(int64_t in_features) {
  const int64_t fitting =
      kUnkeptPanelBytes / (std::max<int64_t>(in_features, 1) * int64_t{sizeof(float)});
  return std::clamp<int64_t>(fitting / 64 * 64, 64, 192);
}

// Rows of x that one call of oneDNN multiplies. Fixed, so that the arithmetic of a row does not
// depend on the number of threads.
constexpr int64_t kChunkRows = 64;

// In 8 bits a thread multiplies this many rows, a multiple of the kernel's tiles, by panels of
// about so many bytes: both stay in a 1 MiB L2 cache.
constexpr int64_t kInt8ChunkRows = 96;
constexpr size_t kInt8PanelsBytes = size_t{384} << 10;

// Stored bytes of weights that a thread multiplies at a time in a single-token step: some
// microseconds of work.
constexpr int64_t kDirectBytesPerRange = 16 << 10;

// Rows of x, and of a low-rank update's A, that a thread makes ready for that at a time.
constexpr int64_t kQuantisedPerRange = 4;
constexpr int64_t kLoraRowsPerRange = 8;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// product [n_rows, n] (+ bias) (+ out) → out, whose rows lie out_stride floats apart.
void StoreProduct(const float* product, int64_t n_rows, int64_t n, const float* bias,
                  bool add_to_out, int64_t out_stride, float* out) {
  for (int64_t row = 0; row < n_rows; ++row, product += n, out += out_stride) {
    if (bias != nullptr && add_to_out) {
      for (int64_t i = 0; i < n; ++i) out[i] += product[i] + bias[i];
    } else if (bias != nullptr) {
      for (int64_t i = 0; i < n; ++i) out[i] = product[i] + bias[i];
    } else if (add_to_out) {
      for (int64_t i = 0; i < n; ++i) out[i] += product[i];
    } else {
      std::copy(product, product + n, out);
    }
  }
}

// sums[i] += factors[0]·rows[0][i] + factors[1]·rows[1][i] + … in this order, for kN values of
// n_rows rows of the given stride. The sums stay in registers: a row at a time, they would be read
// and written again for each, from wherever they and the row lie in the cache.
constexpr int64_t kMergedAtOnce = 16;
template <int64_t kN>
void AddProducts(const float* factors, int64_t n_rows, const float* rows, int64_t stride,
                 float* sums) {
  float own[kN];
  std::copy(sums, sums + kN, own);
  for (int64_t r = 0; r < n_rows; ++r, rows += stride) {
    for (int64_t i = 0; i < kN; ++i) own[i] += factors[r] * rows[i];
  }
  std::copy(own, own + kN, sums);
}

// LinearWeights as the kernels take them.
struct StoredWeights {
  explicit StoredWeights(const LinearWeights& weights)
      : dtype(weights.weight.dtype()),
        weight(weights.weight.As<std::byte>()),
        bias(weights.bias.As<float>()),
        lora_a(weights.lora_a.As<float>()),
        lora_b(weights.lora_b.As<float>()),
        lora_rank(lora_a != nullptr ? weights.lora_a.dim(0) : 0),
        lora_scale(weights.lora_scale),
        keeps_copy(weights.keeps_copy) {}

  DType dtype;
  const std::byte* weight;  // [out_features, in_features], stored rows
  const float* bias;        // [out_features] or null
  const float* lora_a;      // [lora_rank, in_features] or null
  const float* lora_b;      // [out_features, lora_rank]
  int64_t lora_rank;
  float lora_scale;
  bool keeps_copy;
};

class CpuLinear final : public Linear {
 public:
  CpuLinear(CpuDevice& device, const LinearWeights& weights, size_t row_bytes)
      : Linear(weights.name, weights.weight.dim(1), weights.weight.dim(0)),
        weights_(weights),
        row_bytes_(row_bytes),
        precision_(weights.float32_only ? Precision::kFloat32 : device.precision()),
        is_exact_(device.is_exact()),
        panel_features_(weights.keeps_copy ? kPanelFeatures
                                           : UnkeptPanelFeatures(weights.weight.dim(1))),
        budget_(device.packed_weights()),
        resident_(device.resident_weights()),
        lora_a_(weights.lora_a),
        lora_b_(weights.lora_b),
        stored_weights_{weights_.weight, false, lora_b_.data(), lora_b_.dtype()} {}

  ~CpuLinear() override {
    if (packed_ != nullptr) budget_->Release(reserved_bytes_);
  }

  absl::Status DoForward(Device& device, const ConstView& x, bool add_to_out,
                         const View& out) const override {
    const int64_t n_tokens = x.dim(0);
    if (n_tokens > max_direct_tokens()) {
      return Annotate(
          ForwardBatch(AsCpu(device), x.As<float>(), n_tokens, add_to_out, out.As<float>()), name_);
    }
    const Output output{this, out};
    return ForwardDirect(AsCpu(device), {&output, 1}, x.As<float>(), n_tokens, add_to_out);
  }

  void DoPrepareSteps(Device& device) const override { FindDirectWeights(AsCpu(device), 1); }

  int64_t max_rows_as_alone() const override { return max_direct_tokens(); }

  bool is_quantised() const { return Traits(weights_.dtype).block_size > 1; }
  // By single-token steps: rows of x as integers.
  bool uses_integers() const { return is_quantised() && !is_exact_; }
  int64_t max_direct_tokens() const {
    return uses_integers() ? kMaxDirectTokensQuantised : kMaxDirectTokens;
  }

  // All outputs are CpuLinears and n_tokens is at most what each computes directly.
  static absl::Status ForwardDirect(CpuDevice& device, std::span<const Output> outputs,
                                    const float* x, int64_t n_tokens, bool add_to_out) {
    const auto linear = [&](size_t i) -> const CpuLinear& {
      return static_cast<const CpuLinear&>(*outputs[i].linear);
    };
    const int64_t in_features = linear(0).in_features_;
    bool has_quantised = false;
    int64_t total_rank = 0;
    for (size_t i = 0; i < outputs.size(); ++i) {
      has_quantised |= linear(i).uses_integers();
      total_rank += linear(i).weights_.lora_rank;
    }
    // Scratch: [x, quantised | A·x of each].
    const size_t quantized_bytes = has_quantised ? QuantizedVectorsBytes(n_tokens, in_features) : 0;
    absl::StatusOr<std::byte*> scratch = device.SharedScratch(
        quantized_bytes + static_cast<size_t>(n_tokens * total_rank) * sizeof(float));
    if (!scratch.ok()) return Annotate(scratch.status(), linear(0).name_);
    QuantizedVectors quantized;
    if (has_quantised) quantized = PlaceQuantizedVectors(n_tokens, in_features, *scratch);

    const DirectWeights* direct[kMaxTogether];
    MatVecArgs args[kMaxTogether];
    int64_t first_range[kMaxTogether + 1] = {};
    int64_t grain[kMaxTogether];
    float* lora_u[kMaxTogether] = {};
    auto* next_u = reinterpret_cast<float*>(*scratch + quantized_bytes);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const CpuLinear& l = linear(i);
      const StoredWeights& w = l.weights_;
      direct[i] = &l.FindDirectWeights(device, n_tokens);
      args[i] = {.dtype = w.dtype,
                 .weight = direct[i]->weight,
                 .row_bytes = l.row_bytes_,
                 .in_features = in_features,
                 .x = x,
                 .quantized = l.uses_integers() ? &quantized : nullptr,
                 .n_tokens = n_tokens,
                 .bias = w.bias,
                 .add_to_out = add_to_out,
                 .out = outputs[i].out.As<float>(),
                 .out_features = l.out_features_};
      if (w.lora_a != nullptr) {
        args[i].lora_b = direct[i]->lora_b;
        args[i].lora_dtype = direct[i]->lora_dtype;
        args[i].lora_u = lora_u[i] = next_u;
        args[i].lora_rank = w.lora_rank;
        next_u += n_tokens * w.lora_rank;
      }
      // Whole tiles.
      grain[i] = CeilDiv(kDirectBytesPerRange / static_cast<int64_t>(l.row_bytes_) + 1, kTileRows) *
                 kTileRows;
      first_range[i + 1] = first_range[i] + CeilDiv(l.out_features_, grain[i]);
    }
    // What the products need of x: its rows as integers, and A·x, in one loop.
    const int64_t n_quantised = has_quantised ? n_tokens : 0;
    const int64_t quantised_ranges = CeilDiv(n_quantised, kQuantisedPerRange);
    const int64_t lora_ranges = CeilDiv(total_rank, kLoraRowsPerRange);
    device.threads().ParallelFor(
        quantised_ranges + lora_ranges, 1, [&](int64_t range, int64_t, int) {
          if (range < quantised_ranges) {
            const int64_t begin = range * kQuantisedPerRange;
            for (int64_t t = begin; t < std::min(begin + kQuantisedPerRange, n_quantised); ++t) {
              QuantizeVector(x + t * in_features, t, quantized);
            }
            return;
          }
          const int64_t begin = (range - quantised_ranges) * kLoraRowsPerRange;
          for (int64_t row = begin; row < std::min(begin + kLoraRowsPerRange, total_rank); ++row) {
            size_t i = 0;
            int64_t r = row;
            while (r >= linear(i).weights_.lora_rank) r -= linear(i++).weights_.lora_rank;
            linear(i).DownProjectRow(x, n_tokens, r, lora_u[i]);
          }
        });
    device.threads().ParallelFor(first_range[outputs.size()], 1, [&](int64_t range, int64_t, int) {
      size_t i = 0;
      while (range >= first_range[i + 1]) ++i;
      const int64_t begin = (range - first_range[i]) * grain[i];
      const int64_t end = std::min(begin + grain[i], args[i].out_features);
      if (direct[i]->in_tiles) {
        MultiplyRowTiles(args[i], begin, end);
      } else {
        MatVecRows(args[i], begin, end);
      }
    });
    return absl::OkStatus();
  }

 private:
  // What few rows are multiplied by: from the first single-token step on a copy in huge pages, in
  // tiles where the processor multiplies those, if there is room; till then, and else, the stored
  // weights themselves. Many such steps follow on one another, and each waits for the memory.
  struct DirectWeights {
    const std::byte* weight = nullptr;
    bool in_tiles = false;
    const std::byte* lora_b = nullptr;  // in the order of the weights
    DType lora_dtype = DType::kF32;
  };
  const DirectWeights& FindDirectWeights(CpuDevice& device, int64_t n_tokens) const {
    if (has_resident_.load(std::memory_order_acquire)) return resident_weights_;
    if (n_tokens > 1 || !weights_.keeps_copy) return stored_weights_;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!has_resident_.load(std::memory_order_relaxed)) {
      resident_weights_ = MakeResident(device);
      has_resident_.store(true, std::memory_order_release);
    }
    return resident_weights_;
  }

  DirectWeights MakeResident(CpuDevice& device) const {
    const size_t weight_bytes = static_cast<size_t>(out_features_) * row_bytes_;
    const int64_t n_lora = out_features_ * weights_.lora_rank;
    const bool in_tiles =
        uses_integers() && HasRowTiles(weights_.dtype, out_features_, in_features_);
    std::byte* const copy = resident_->Allocate(weight_bytes);
    std::byte* const lora_copy =
        copy != nullptr && in_tiles && n_lora > 0
            ? resident_->Allocate(static_cast<size_t>(n_lora) * sizeof(float))
            : nullptr;
    if (copy == nullptr || (in_tiles && n_lora > 0 && lora_copy == nullptr)) return stored_weights_;
    if (!in_tiles) {
      constexpr int64_t kRange = 128 << 10;
      device.threads().ParallelFor(
          static_cast<int64_t>(weight_bytes), kRange, [&](int64_t begin, int64_t end, int) {
            std::copy(weights_.weight + begin, weights_.weight + end, copy + begin);
          });
      return {copy, false, stored_weights_.lora_b, stored_weights_.lora_dtype};
    }
    auto* const lora_tiles = reinterpret_cast<float*>(lora_copy);
    const int64_t rank = weights_.lora_rank;
    device.threads().ParallelFor(
        out_features_ / kTileRows, 4, [&](int64_t begin, int64_t end, int) {
          PackRowTiles(weights_.dtype, weights_.weight, row_bytes_, begin, end, copy);
          for (int64_t row = begin * kTileRows; row < end * kTileRows && n_lora > 0; ++row) {
            float* to = lora_tiles + row / kTileRows * kTileRows * rank + row % kTileRows;
            for (int64_t r = 0; r < rank; ++r) to[r * kTileRows] = weights_.lora_b[row * rank + r];
          }
        });
    return {copy, true, lora_copy, DType::kF32};
  }

  // Row `r` of scale · A·x → u [n_tokens, lora_rank].
  void DownProjectRow(const float* x, int64_t n_tokens, int64_t r, float* u) const {
    const size_t value_bytes = lora_a_.dtype() == DType::kBF16 ? 2 : 4;
    MatVecRows({.dtype = lora_a_.dtype(),
                .weight = lora_a_.data(),
                .row_bytes = static_cast<size_t>(in_features_) * value_bytes,
                .in_features = in_features_,
                .x = x,
                .n_tokens = n_tokens,
                .out = u,
                .out_features = weights_.lora_rank},
               r, r + 1);
    for (int64_t t = 0; t < n_tokens; ++t) u[t * weights_.lora_rank + r] *= weights_.lora_scale;
  }

  int64_t n_panels() const { return CeilDiv(out_features_, panel_features_); }
  int64_t PanelFeatures(int64_t panel) const {
    return std::min(panel_features_, out_features_ - panel * panel_features_);
  }

  // Bytes of a packed panel of panel_features_, and of the last one; both multiples of 64.
  struct PackedSizes {
    size_t panel = 0;
    size_t last = 0;
  };
  absl::StatusOr<PackedSizes> FindPackedSizes(CpuDevice& device) const {
    const auto size = [&](int64_t panel) -> absl::StatusOr<size_t> {
      ASSIGN_OR_RETURN(const size_t bytes,
                       device.gemm_plans().PackedBytes(PanelFeatures(panel), in_features_));
      return (bytes + 63) / 64 * 64;
    };
    PackedSizes sizes;
    ASSIGN_OR_RETURN(sizes.panel, size(0));
    ASSIGN_OR_RETURN(sizes.last, size(n_panels() - 1));
    return sizes;
  }

  size_t unpacked_panel_bytes() const {
    const auto floats = static_cast<size_t>(std::min(panel_features_, out_features_)) *
                        static_cast<size_t>(in_features_);
    return (floats * sizeof(float) + 63) / 64 * 64;
  }

  // Rows [first, first + n) of W + scale·B·A → floats [n, in_features].
  void MergeRows(int64_t first, int64_t n, float* floats) const {
    std::vector<float> factors(static_cast<size_t>(weights_.lora_rank));
    for (int64_t feature = first; feature < first + n; ++feature, floats += in_features_) {
      DequantizeRow(weights_.dtype, weights_.weight + static_cast<size_t>(feature) * row_bytes_,
                    in_features_, floats);
      if (weights_.lora_a == nullptr) continue;
      const int64_t rank = weights_.lora_rank;
      for (int64_t r = 0; r < rank; ++r) {
        factors[r] = weights_.lora_scale * weights_.lora_b[feature * rank + r];
      }
      int64_t j = 0;
      for (; j + kMergedAtOnce <= in_features_; j += kMergedAtOnce) {
        AddProducts<kMergedAtOnce>(factors.data(), rank, weights_.lora_a + j, in_features_,
                                   floats + j);
      }
      for (; j < in_features_; ++j) {
        AddProducts<1>(factors.data(), rank, weights_.lora_a + j, in_features_, floats + j);
      }
    }
  }

  // A panel of W + scale·B·A → packed; `scratch` holds unpacked_panel_bytes().
  absl::Status PackPanel(const GemmPlans& plans, int64_t panel, std::byte* scratch,
                         std::byte* packed) const {
    auto* const floats = reinterpret_cast<float*>(scratch);
    MergeRows(panel * panel_features_, PanelFeatures(panel), floats);
    return plans.Pack(PanelFeatures(panel), in_features_, floats, packed);
  }

  // The packed copy of n_panels, or null when none is wanted or the budget has no room. Made by the
  // first caller, on its device, by pack(panel, a thread's scratch, the copy); others wait.
  absl::StatusOr<const std::byte*> FindOrMakePacked(
      CpuDevice& device, size_t size_bytes, int64_t n_panels, size_t scratch_bytes,
      absl::FunctionRef<absl::Status(int64_t, std::byte*, std::byte*)> pack) const {
    if (!weights_.keeps_copy) return nullptr;
    if (is_decided_.load(std::memory_order_acquire)) return packed_.get();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_decided_.load(std::memory_order_relaxed)) return packed_.get();
    if (budget_->TryReserve(size_bytes)) {
      AlignedBytes packed = AllocateAligned(size_bytes);
      absl::Status status = packed != nullptr
                                ? device.ReserveThreadScratch(scratch_bytes)
                                : absl::ResourceExhaustedError(StrCat(
                                      "cannot allocate ", size_bytes, " bytes for packed weights"));
      if (status.ok()) {
        LoopStatus loop;
        device.threads().ParallelFor(n_panels, 1, [&](int64_t panel, int64_t, int thread) {
          loop.Update(pack(panel, device.thread_scratch(thread), packed.get()));
        });
        status = loop.status();
      }
      if (!status.ok()) {
        budget_->Release(size_bytes);
        return status;
      }
      packed_ = std::move(packed);
      reserved_bytes_ = size_bytes;
    }
    is_decided_.store(true, std::memory_order_release);
    return packed_.get();
  }

  // As ForwardBatch, in 8 bits: x is quantised once, then multiplied by panels of features.
  absl::Status ForwardInt8(CpuDevice& device, const float* x, int64_t n_tokens, bool add_to_out,
                           float* out) const {
    const size_t panel_bytes = Int8PanelBytes(in_features_);
    const int64_t n_panels = CeilDiv(out_features_, kInt8PanelFeatures);
    const size_t merged_bytes =
        static_cast<size_t>(kInt8PanelFeatures * in_features_) * sizeof(float);
    const auto features = [&](int64_t panel) {
      return std::min(kInt8PanelFeatures, out_features_ - panel * kInt8PanelFeatures);
    };
    const auto pack = [&](int64_t panel, std::byte* scratch, std::byte* packed) {
      auto* const floats = reinterpret_cast<float*>(scratch);
      MergeRows(panel * kInt8PanelFeatures, features(panel), floats);
      PackInt8Panel(floats, features(panel), in_features_, packed);
    };
    ASSIGN_OR_RETURN(
        const std::byte* const packed,
        FindOrMakePacked(device, panel_bytes * static_cast<size_t>(n_panels), n_panels,
                         merged_bytes, [&](int64_t panel, std::byte* scratch, std::byte* to) {
                           pack(panel, scratch, to + static_cast<size_t>(panel) * panel_bytes);
                           return absl::OkStatus();
                         }));

    ASSIGN_OR_RETURN(std::byte* const rows_memory,
                     device.SharedScratch(Int8RowsBytes(n_tokens, in_features_)));
    const Int8Rows rows = MakeInt8Rows(n_tokens, in_features_, rows_memory);
    device.threads().ParallelFor(
        n_tokens, ElementwiseGrain(in_features_),
        [&](int64_t begin, int64_t end, int) { QuantizeInt8Rows(x, begin, end, rows); });

    const auto multiply = [&](int64_t panel, const std::byte* packed_panel, int64_t begin,
                              int64_t end) {
      const int64_t feature = panel * kInt8PanelFeatures;
      MultiplyInt8({.rows = &rows,
                    .panel = packed_panel,
                    .n_features = features(panel),
                    .bias = weights_.bias != nullptr ? weights_.bias + feature : nullptr,
                    .add_to_out = add_to_out,
                    .out = out + feature,
                    .out_stride = out_features_},
                   begin, end);
    };
    if (packed != nullptr) {
      const int64_t n_chunks = CeilDiv(n_tokens, kInt8ChunkRows);
      const auto panels_per_item =
          static_cast<int64_t>(std::max<size_t>(1, kInt8PanelsBytes / panel_bytes));
      device.threads().ParallelFor(
          CeilDiv(n_panels, panels_per_item) * n_chunks, 1, [&](int64_t item, int64_t, int) {
            const int64_t begin = item % n_chunks * kInt8ChunkRows;
            const int64_t first = item / n_chunks * panels_per_item;
            for (int64_t panel = first; panel < std::min(n_panels, first + panels_per_item);
                 ++panel) {
              multiply(panel, packed + static_cast<size_t>(panel) * panel_bytes, begin,
                       std::min(n_tokens, begin + kInt8ChunkRows));
            }
          });
      return absl::OkStatus();
    }
    // Without a copy each thread packs a panel for itself and multiplies all rows by it.
    const size_t packed_offset = (merged_bytes + 63) / 64 * 64;
    RETURN_IF_ERROR(device.ReserveThreadScratch(packed_offset + panel_bytes));
    device.threads().ParallelFor(n_panels, 1, [&](int64_t panel, int64_t, int thread) {
      std::byte* const scratch = device.thread_scratch(thread);
      pack(panel, scratch, scratch + packed_offset);
      multiply(panel, scratch + packed_offset, 0, n_tokens);
    });
    return absl::OkStatus();
  }

  absl::Status ForwardBatch(CpuDevice& device, const float* x, int64_t n_tokens, bool add_to_out,
                            float* out) const {
    if (precision_ == Precision::kInt8) return ForwardInt8(device, x, n_tokens, add_to_out, out);
    ASSIGN_OR_RETURN(const PackedSizes sizes, FindPackedSizes(device));
    ASSIGN_OR_RETURN(
        const std::byte* const packed,
        FindOrMakePacked(device, sizes.panel * static_cast<size_t>(n_panels() - 1) + sizes.last,
                         n_panels(), unpacked_panel_bytes(),
                         [&](int64_t panel, std::byte* scratch, std::byte* to) {
                           return PackPanel(device.gemm_plans(), panel, scratch,
                                            to + static_cast<size_t>(panel) * sizes.panel);
                         }));

    // Up to four shapes: whole or last chunk of rows × whole or last panel.
    const int64_t n_chunks = CeilDiv(n_tokens, kChunkRows);
    const auto chunk_rows = [&](int64_t chunk) {
      return std::min(kChunkRows, n_tokens - chunk * kChunkRows);
    };
    std::shared_ptr<const GemmPlan> plans[2][2];
    size_t plan_scratch_bytes = 0;
    for (const bool last_chunk : {false, true}) {
      for (const bool last_panel : {false, true}) {
        auto& plan = plans[last_chunk][last_panel];
        ASSIGN_OR_RETURN(
            plan, device.gemm_plans().Find({.rows = chunk_rows(last_chunk ? n_chunks - 1 : 0),
                                            .n = PanelFeatures(last_panel ? n_panels() - 1 : 0),
                                            .k = in_features_}));
        plan_scratch_bytes = std::max(plan_scratch_bytes, plan->scratch_bytes());
      }
    }
    // A thread's scratch: [product of a chunk and a panel | the plan's | without a packed copy:
    // a panel as floats, and packed].
    const size_t product_bytes = static_cast<size_t>(kChunkRows * panel_features_) * sizeof(float);
    const size_t unpacked_offset = product_bytes + (plan_scratch_bytes + 63) / 64 * 64;
    const size_t packed_offset = unpacked_offset + unpacked_panel_bytes();
    RETURN_IF_ERROR(device.ReserveThreadScratch(
        packed != nullptr ? unpacked_offset : packed_offset + std::max(sizes.panel, sizes.last)));

    const bool is_direct = n_panels() == 1 && weights_.bias == nullptr && !add_to_out;
    const auto run = [&](int64_t chunk, int64_t panel, const std::byte* packed_panel,
                         std::byte* scratch) -> absl::Status {
      const GemmPlan& plan = *plans[chunk == n_chunks - 1][panel == n_panels() - 1];
      const int64_t row = chunk * kChunkRows;
      const float* const x_rows = x + row * in_features_;
      const int64_t feature = panel * panel_features_;
      float* const out_rows = out + row * out_features_ + feature;
      if (is_direct) return plan.Run(x_rows, packed_panel, scratch + product_bytes, out_rows);
      auto* const product = reinterpret_cast<float*>(scratch);
      RETURN_IF_ERROR(plan.Run(x_rows, packed_panel, scratch + product_bytes, product));
      StoreProduct(product, chunk_rows(chunk), PanelFeatures(panel),
                   weights_.bias != nullptr ? weights_.bias + feature : nullptr, add_to_out,
                   out_features_, out_rows);
      return absl::OkStatus();
    };

    LoopStatus loop;
    if (packed != nullptr) {
      // Panels outside, chunks inside: a thread keeps a panel in its cache over several chunks.
      device.threads().ParallelFor(
          n_panels() * n_chunks, 1, [&](int64_t item, int64_t, int thread) {
            const int64_t panel = item / n_chunks;
            loop.Update(run(item % n_chunks, panel,
                            packed + static_cast<size_t>(panel) * sizes.panel,
                            device.thread_scratch(thread)));
          });
      return loop.status();
    }
    // Without a copy each thread packs a panel for itself and multiplies all rows by it.
    device.threads().ParallelFor(n_panels(), 1, [&](int64_t panel, int64_t, int thread) {
      std::byte* const scratch = device.thread_scratch(thread);
      loop.Update(PackPanel(device.gemm_plans(), panel, scratch + unpacked_offset,
                            scratch + packed_offset));
      for (int64_t chunk = 0; chunk < n_chunks && loop.ok(); ++chunk) {
        loop.Update(run(chunk, panel, scratch + packed_offset, scratch));
      }
    });
    return loop.status();
  }

  const StoredWeights weights_;
  const size_t row_bytes_;
  const Precision precision_;  // of many rows
  const bool is_exact_;        // few rows of quantised weights, too
  const int64_t panel_features_;
  const std::shared_ptr<MemoryBudget> budget_;
  const std::shared_ptr<HugePages> resident_;
  const LoraFactor lora_a_;  // [lora_rank, in_features]
  const LoraFactor lora_b_;  // [out_features, lora_rank]

  mutable std::mutex mutex_;
  mutable std::atomic<bool> is_decided_{false};  // packed_ does not change any more
  mutable AlignedBytes packed_;
  mutable size_t reserved_bytes_ = 0;
  const DirectWeights stored_weights_;
  mutable DirectWeights resident_weights_;
  mutable std::atomic<bool> has_resident_{false};  // resident_weights_ does not change any more
};

}  // namespace

absl::StatusOr<std::unique_ptr<Linear>> CreateLinear(CpuDevice& device,
                                                     const LinearWeights& weights) {
  ASSIGN_OR_RETURN(const size_t row_bytes, RowBytes(weights.weight.dtype(), weights.weight.dim(1)));
  return std::make_unique<CpuLinear>(device, weights, row_bytes);
}

absl::Status ForwardTogether(CpuDevice& device, std::span<const Linear::Output> outputs,
                             const ConstView& x) {
  const int64_t n_tokens = x.dim(0);
  const bool is_direct = std::all_of(outputs.begin(), outputs.end(), [&](const auto& output) {
    return n_tokens <= static_cast<const CpuLinear*>(output.linear)->max_direct_tokens();
  });
  if (is_direct) {
    return CpuLinear::ForwardDirect(device, outputs, x.As<float>(), n_tokens, false);
  }
  for (const Linear::Output& output : outputs) {
    RETURN_IF_ERROR(output.linear->Forward(device, x, false, output.out));
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
