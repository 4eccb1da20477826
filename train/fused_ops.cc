#include "train/fused_ops.h"

#include <optional>

#ifdef FOVEA_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "train/fused_kernels.h"
#endif

namespace fovea::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

#ifdef FOVEA_HAS_CUDA
void* StreamOf(const Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.device().index()).stream();
}

class AddRmsNormFunction : public torch::autograd::Function<AddRmsNormFunction> {
 public:
  static tensor_list forward(AutogradContext* context, const Tensor& x,
                             const std::optional<Tensor>& delta, const Tensor& weight, double eps) {
    const c10::cuda::CUDAGuard guard(x.device());
    const Tensor input = x.contiguous();
    const Tensor added = delta.has_value() ? delta->contiguous() : Tensor();
    const int64_t size = x.size(-1);
    const int64_t n_rows = x.numel() / size;
    Tensor sum = added.defined() ? torch::empty_like(input) : input;
    Tensor out = torch::empty_like(input);
    const Tensor inverse_rms = torch::empty({n_rows}, weight.options());
    kernels::AddRmsNorm(input.data_ptr(), added.defined() ? added.data_ptr() : nullptr,
                        weight.data_ptr<float>(), n_rows, size, static_cast<float>(eps),
                        sum.data_ptr(), out.data_ptr(), inverse_rms.data_ptr<float>(), StreamOf(x));
    context->save_for_backward({sum, weight, inverse_rms});
    context->saved_data["has_delta"] = added.defined();
    if (!added.defined()) return {out};
    return {out, sum};
  }
  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& sum = saved[0];
    const c10::cuda::CUDAGuard guard(sum.device());
    const Tensor of_out = gradients[0].contiguous();
    const Tensor of_sum =
        gradients.size() > 1 && gradients[1].defined() ? gradients[1].contiguous() : Tensor();
    Tensor gradient = torch::empty_like(sum);
    const int64_t size = sum.size(-1);
    kernels::AddRmsNormGradient(sum.data_ptr(), saved[1].data_ptr<float>(),
                                saved[2].data_ptr<float>(), of_out.data_ptr(),
                                of_sum.defined() ? of_sum.data_ptr() : nullptr, sum.numel() / size,
                                size, gradient.data_ptr(), StreamOf(sum));
    return {gradient, context->saved_data["has_delta"].toBool() ? gradient : Tensor(), Tensor(),
            Tensor()};
  }
};

class RotateHeadsFunction : public torch::autograd::Function<RotateHeadsFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, int64_t n_rotated,
                        const Tensor& cos, const Tensor& sin) {
    context->save_for_backward({cos, sin});
    context->saved_data["n_rotated"] = n_rotated;
    return Rotated(x, n_rotated, cos, sin, /*back=*/false);
  }
  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {Rotated(gradients[0], context->saved_data["n_rotated"].toInt(), saved[0], saved[1],
                    /*back=*/true),
            Tensor(), Tensor(), Tensor()};
  }

 private:
  static Tensor Rotated(const Tensor& x, int64_t n_rotated, const Tensor& cos, const Tensor& sin,
                        bool back) {
    const c10::cuda::CUDAGuard guard(x.device());
    const Tensor input = x.contiguous();
    Tensor out = torch::empty_like(input);
    kernels::RotateHeads(input.data_ptr(), cos.data_ptr<float>(), sin.data_ptr<float>(),
                         x.size(0) * x.size(1), x.size(1), x.size(2), n_rotated, x.size(3), back,
                         out.data_ptr(), StreamOf(x));
    return out;
  }
};

class SwiGluFunction : public torch::autograd::Function<SwiGluFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gate_up) {
    const c10::cuda::CUDAGuard guard(gate_up.device());
    const Tensor input = gate_up.contiguous();
    context->save_for_backward({input});
    std::vector<int64_t> shape = input.sizes().vec();
    shape.back() /= 2;
    Tensor out = torch::empty(shape, input.options());
    kernels::SwiGlu(input.data_ptr(), out.numel() / shape.back(), shape.back(), out.data_ptr(),
                    StreamOf(input));
    return out;
  }
  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const Tensor input = context->get_saved_variables()[0];
    const c10::cuda::CUDAGuard guard(input.device());
    const Tensor of_out = gradients[0].contiguous();
    Tensor gradient = torch::empty_like(input);
    const int64_t size = input.size(-1) / 2;
    kernels::SwiGluGradient(input.data_ptr(), of_out.data_ptr(), of_out.numel() / size, size,
                            gradient.data_ptr(), StreamOf(input));
    return {gradient};
  }
};

// Kernels read pairs of neighbours.
bool Fuses(const Tensor& x, int64_t size) {
  return x.is_cuda() && x.scalar_type() == torch::kBFloat16 && size % 2 == 0;
}
#endif

}  // namespace

std::pair<Tensor, Tensor> AddRmsNorm(const Tensor& x, const Tensor& delta, const Tensor& weight,
                                     double eps) {
#ifdef FOVEA_HAS_CUDA
  if (Fuses(x, x.size(-1))) {
    const tensor_list result = AddRmsNormFunction::apply(
        x, delta.defined() ? std::optional<Tensor>(delta) : std::nullopt, weight, eps);
    return {result.size() > 1 ? result[1] : x, result[0]};
  }
#endif
  const Tensor sum = delta.defined() ? x + delta : x;
  return {sum,
          torch::rms_norm(sum.to(torch::kFloat32), {x.size(-1)}, weight, eps).to(x.scalar_type())};
}

Tensor RotateHeads(const Tensor& x, int64_t n_rotated, const Tensor& cos, const Tensor& sin) {
#ifdef FOVEA_HAS_CUDA
  if (Fuses(x, x.size(3))) return RotateHeadsFunction::apply(x, n_rotated, cos, sin);
#endif
  const int64_t half = x.size(3) / 2;
  const auto table = [&](const Tensor& of) { return of.slice(0, 0, x.size(1)).unsqueeze(1); };
  const Tensor rotated = x.slice(2, 0, n_rotated).to(torch::kFloat32);
  const Tensor low = rotated.slice(3, 0, half);
  const Tensor high = rotated.slice(3, half);
  const Tensor turned =
      torch::cat({low * table(cos) - high * table(sin), high * table(cos) + low * table(sin)}, 3)
          .to(x.scalar_type());
  return torch::cat({turned, x.slice(2, n_rotated)}, 2);
}

Tensor SwiGlu(const Tensor& gate_up) {
#ifdef FOVEA_HAS_CUDA
  if (Fuses(gate_up, gate_up.size(-1) / 2)) return SwiGluFunction::apply(gate_up);
#endif
  const std::vector<Tensor> halves = gate_up.chunk(2, -1);
  return torch::silu(halves[0]) * halves[1];
}

}  // namespace fovea::train
