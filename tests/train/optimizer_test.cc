#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fovea::train {
namespace {

// The paper's algorithm for each number by itself, in float64.
TEST(OptimizerTest, StepsAsAdamWDoes) {
  torch::manual_seed(1);
  const torch::Tensor a = torch::randn({3, 4}).requires_grad_();
  const torch::Tensor gain = torch::randn({2}).requires_grad_();
  const OptimizerOptions options{.max_gradient_norm = 0.5};
  std::vector<double> values, first(14, 0.0), second(14, 0.0);
  for (const torch::Tensor& t : {a, gain}) {
    for (int64_t i = 0; i < t.numel(); ++i) values.push_back(t.flatten()[i].item<double>());
  }
  Optimizer optimizer({{"a", a, false}, {"gain", gain, true}}, options);
  for (int step = 1; step <= 5; ++step) {
    (a.square().sum() * step + (gain * gain.exp()).sum()).backward();
    std::vector<double> gradients;
    for (size_t i = 0; i < 14; ++i) {
      gradients.push_back(i < 12 ? 2 * values[i] * step : std::exp(values[i]) * (1 + values[i]));
    }
    double norm = 0.0;
    for (const double g : gradients) norm += g * g;
    norm = std::sqrt(norm);
    EXPECT_NEAR(optimizer.Step(0.01).item<double>(), norm, 1e-4 * norm);
    for (size_t i = 0; i < 14; ++i) {
      const double g = gradients[i] * std::min(1.0, 0.5 / norm);
      first[i] = 0.9 * first[i] + 0.1 * g;
      second[i] = 0.98 * second[i] + 0.02 * g * g;
      const double rate = i < 12 ? 0.01 : 0.05;
      if (i < 12) values[i] -= rate * 0.01 * values[i];
      values[i] -= rate * (first[i] / (1 - std::pow(0.9, step))) /
                   (std::sqrt(second[i] / (1 - std::pow(0.98, step))) + 1e-8);
      const torch::Tensor& t = i < 12 ? a : gain;
      EXPECT_NEAR(t.flatten()[static_cast<int64_t>(i < 12 ? i : i - 12)].item<double>(), values[i],
                  2e-5)
          << step << " " << i;
    }
  }
}

TEST(OptimizerTest, AStateOfAnotherSizeIsRefused) {
  const torch::Tensor a = torch::randn({3}).requires_grad_();
  Optimizer optimizer({{"a", a, false}}, {});
  EXPECT_TRUE(absl::IsInvalidArgument(optimizer.SetState(torch::zeros({3, 4}), 1)));
  ASSERT_TRUE(optimizer.SetState(torch::ones({3, 3}), 7).ok());
  EXPECT_EQ(optimizer.n_steps(), 7);
  EXPECT_EQ(a[1].item<float>(), 1.0f);
}

}  // namespace
}  // namespace fovea::train
