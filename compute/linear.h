// y = x·Wᵀ + bias (+ residual), W as it is stored on disk (float or block-quantised), with an
// optional low-rank update (LoRA, Hu et al. 2021): W + scale·B·A.
//
// Few rows (single-token steps, short prompts) are computed straight from the stored weights, or a
// copy of their bytes where a step reads them faster (PrepareSteps), with the LoRA as two small
// products beside them; on a GPU the LoRA of small weights is merged into the copy that many rows
// use, which steps read, too. Quantised weights are then multiplied as integers, by
// rows of x that are rounded to 15 bits in blocks of 32 values, which errs by less than 2⁻¹⁵ of the
// largest value of a block; on an exact device they are dequantised and multiplied as floats. Many
// rows use a copy of W + scale·B·A (one dequantisation, the LoRA merged) in the device's
// precision(), made on first use: floats packed for oneDNN, or 8-bit integers
// (compute/cpu/int8_gemm.h). Where there is no room for it, or none is wanted, that is done again
// for each batch, some features at a time.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct LinearWeights {
  std::string name;  // for error messages
  // All borrowed, in the device's memory, contiguous.
  ConstView weight;       // [out_features, in_features], any type
  ConstView bias = {};    // [out_features], float32; may be none
  ConstView lora_a = {};  // [lora_rank, in_features], float32; may be none
  ConstView lora_b = {};  // [out_features, lora_rank], float32; none where lora_a is
  float lora_scale = 0.0f;
  bool float32_only = false;  // whatever the device's precision
  // Copies in a faster form or place, as far as the device has room for them; false: none.
  bool keeps_copy = true;
};

// Immutable after Create but for the packed copy, which is made once, under a lock: thread-safe,
// one Device a thread. The borrowed memory must outlive it.
class Linear {
 public:
  static absl::StatusOr<std::unique_ptr<Linear>> Create(Device& device,
                                                        const LinearWeights& weights);
  virtual ~Linear() = default;

  // out[t, :] = W·x[t, :] + bias (+ out[t, :] when add_to_out, for residual connections).
  // x: [n_tokens, in_features]; out: [n_tokens, out_features]; float32, contiguous; they do not
  // overlap. InvalidArgument for views of other types or shapes. x may be bfloat16 where
  // TakesBFloat16: what float32 numbers would be rounded to.
  absl::Status Forward(Device& device, const ConstView& x, bool add_to_out, const View& out) const;

  virtual bool TakesBFloat16(int64_t /*n_tokens*/) const { return false; }

  // Up to so many rows of x the result of a row is the same, bit for bit, as that of the row alone:
  // single-token steps of as many answers may be run together.
  virtual int64_t max_rows_as_alone() const = 0;

  // Makes ready what calls with one token use (on a CPU the weights in an order of their own, where
  // there is room); else the first such call does.
  void PrepareSteps(Device& device) const;

  // Several weights that multiply the same x (queries, keys and values; gate and up): what Forward
  // computes, in fewer loops over the device's threads, whose start and end a single-token step
  // feels. At most kMaxTogether outputs.
  struct Output {
    const Linear* linear = nullptr;  // [out_features, in_features], all of the same in_features
    View out;                        // [n_tokens, out_features]
  };
  static constexpr int kMaxTogether = 4;
  static absl::Status ForwardTogether(Device& device, std::span<const Output> outputs,
                                      const ConstView& x);

  // RMSNorm of x (compute/rms_norm.h) before the products.
  struct Norm {
    ConstView weight;  // [in_features], float32
    float eps = 1e-5f;
    View normed;  // [n_tokens, in_features], float32: a workspace, with any content afterwards
  };
  // ForwardTogether of RmsNorm(x), on a GPU in one kernel for few tokens.
  static absl::Status ForwardNormed(Device& device, std::span<const Output> outputs,
                                    const ConstView& x, const Norm& norm);
  // The first half of a SwiGLU block (Shazeer 2020, arXiv 2002.05202), n = RmsNorm(x):
  // gate.out = silu(gate(n)) · up(n), up.out = any content. Both have as many features.
  static absl::Status ForwardGated(Device& device, const Output& gate, const Output& up,
                                   const ConstView& x, const Norm& norm);

  const std::string& name() const { return name_; }

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }

 protected:
  absl::Status CheckX(const Device& device, const ConstView& x) const;
  Linear(std::string name, int64_t in_features, int64_t out_features)
      : name_(std::move(name)), in_features_(in_features), out_features_(out_features) {}
  // What the device's part computes, with arguments checked already; at least one token.
  virtual absl::Status DoForward(Device& device, const ConstView& x, bool add_to_out,
                                 const View& out) const = 0;
  virtual void DoPrepareSteps(Device& /*device*/) const {}

  static absl::Status CheckTogether(const Device& device, std::span<const Output> outputs,
                                    const ConstView& x);

  std::string name_;
  int64_t in_features_;
  int64_t out_features_;
};

}  // namespace fovea::compute
