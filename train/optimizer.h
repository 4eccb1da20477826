// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over all parameters at once: they, their
// gradients and its moments are four flat tensors, so that a step is a few operations whatever the
// number of parameters.
#pragma once

#include <cstdint>
#include <vector>

#include "train/torch.h"
#include "train/trainable_model.h"

namespace fovea::train {

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double weight_decay = 0.01;      // of matrices; key gains and norms do not decay
  double key_gain_factor = 5.0;    // of the learning rate, for key gains and norms
  double max_gradient_norm = 1.0;  // longer gradients are shortened to it; 0: they stay
};

// Not thread-safe. The parameters' storage moves into the flat tensor.
class Optimizer {
 public:
  Optimizer(const std::vector<TrainableParameter>& parameters, const OptimizerOptions& options);

  // Updates the parameters by their gradients and sets those to 0. Returns the gradients' norm
  // before it was shortened, on the device.
  torch::Tensor Step(double learning_rate);
  int64_t n_steps() const { return n_steps_; }
  int64_t n_parameters() const { return values_.numel(); }

  // What a run goes on with: parameters and moments, float32 [3, n_parameters] in main memory, and
  // the number of steps.
  torch::Tensor State() const;
  // InvalidArgument for a state of another size.
  absl::Status SetState(const torch::Tensor& state, int64_t n_steps);

 private:
  OptimizerOptions options_;
  torch::Tensor values_, gradients_, first_, second_;
  torch::Tensor rates_, decays_;  // by parameter: factors
  int64_t n_steps_ = 0;
};

}  // namespace fovea::train
