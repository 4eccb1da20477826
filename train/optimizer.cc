#include "train/optimizer.h"

#include <cmath>

#include "base/strings.h"

namespace fovea::train {

using torch::Tensor;

Optimizer::Optimizer(const std::vector<TrainableParameter>& parameters,
                     const OptimizerOptions& options)
    : options_(options) {
  torch::NoGradGuard guard;
  int64_t n = 0;
  for (const TrainableParameter& parameter : parameters) n += parameter.value.numel();
  const auto like =
      torch::TensorOptions()
          .dtype(torch::kFloat32)
          .device(parameters.empty() ? torch::Device(torch::kCPU) : parameters[0].value.device());
  values_ = torch::empty({n}, like);
  gradients_ = torch::zeros({n}, like);
  first_ = torch::zeros({n}, like);
  second_ = torch::zeros({n}, like);
  rates_ = torch::ones({n}, like);
  decays_ = torch::full({n}, options.weight_decay, like);
  int64_t begin = 0;
  for (const TrainableParameter& parameter : parameters) {
    const int64_t size = parameter.value.numel();
    Tensor place = values_.narrow(0, begin, size).view(parameter.value.sizes());
    place.copy_(parameter.value);
    Tensor value = parameter.value;  // the same tensor
    value.set_data(place);
    value.mutable_grad() = gradients_.narrow(0, begin, size).view(parameter.value.sizes());
    if (parameter.is_key_gain || parameter.is_norm) {
      rates_.narrow(0, begin, size).fill_(options.key_gain_factor);
      decays_.narrow(0, begin, size).fill_(0.0);
    }
    begin += size;
  }
}

Tensor Optimizer::Step(double learning_rate) {
  torch::NoGradGuard guard;
  ++n_steps_;
  const Tensor norm = gradients_.norm();
  if (options_.max_gradient_norm > 0) {
    gradients_.mul_((options_.max_gradient_norm / (norm + 1e-6)).clamp_max(1.0));
  }
  first_.lerp_(gradients_, 1.0 - options_.beta1);
  second_.mul_(options_.beta2).addcmul_(gradients_, gradients_, 1.0 - options_.beta2);
  const auto step = static_cast<double>(n_steps_);
  const double correction1 = 1.0 - std::pow(options_.beta1, step);
  const double correction2 = 1.0 - std::pow(options_.beta2, step);
  const Tensor rates = rates_ * learning_rate;
  values_.addcmul_(values_, rates * decays_, -1.0);
  const Tensor root = (second_ / correction2).sqrt_().add_(options_.epsilon);
  values_.addcmul_(first_ / root, rates, -1.0 / correction1);
  gradients_.zero_();
  return norm;
}

Tensor Optimizer::State() const {
  return torch::stack({values_.detach(), first_, second_}).to(torch::kCPU).contiguous();
}

absl::Status Optimizer::SetState(const Tensor& state, int64_t n_steps) {
  if (state.dim() != 2 || state.size(0) != 3 || state.size(1) != values_.numel()) {
    return absl::InvalidArgumentError(
        StrCat("a checkpoint of ", state.numel() / 3, " parameters, want ", values_.numel()));
  }
  torch::NoGradGuard guard;
  values_.copy_(state[0]);
  first_.copy_(state[1]);
  second_.copy_(state[2]);
  n_steps_ = n_steps;
  return absl::OkStatus();
}

}  // namespace fovea::train
