// Fused ops and attention to contexts, with their gradients, against plain formulas in float64: on
// the CPU in float32, and on a GPU, where there is one, in bfloat16.
#include "train/fused_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "train/memory_attention.h"

namespace fovea::train {
namespace {

using torch::Tensor;

struct Where {
  torch::Device device = torch::kCPU;
  torch::Dtype type = torch::kFloat32;
  double tolerance = 1e-5;  // of the largest value
};

class FusedOpsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    torch::manual_seed(11);
    if (std::string(GetParam()) == "cpu") return;
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    where_ = {torch::kCUDA, torch::kBFloat16, 0.02};
  }

  // What `op` makes of `inputs`, and the gradients of a random sum of it by them, is what `plain`
  // gives in float64.
  using Op = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
  void ExpectSame(const std::vector<Tensor>& inputs, const Op& op, const Op& plain) {
    std::vector<Tensor> ours, exact;
    for (const Tensor& input : inputs) {
      const Tensor rounded = input.to(where_.type);
      ours.push_back(rounded.to(where_.device).detach().requires_grad_());
      exact.push_back(rounded.to(torch::kFloat64).detach().requires_grad_());
    }
    const std::vector<Tensor> got = op(ours);
    const std::vector<Tensor> want = plain(exact);
    ASSERT_EQ(got.size(), want.size());
    Tensor loss = torch::zeros({}, torch::kFloat64);
    Tensor exact_loss = torch::zeros({}, torch::kFloat64);
    for (size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE("output " + std::to_string(i));
      ExpectNear(got[i], want[i]);
      const Tensor direction = torch::randn(want[i].sizes(), torch::kFloat64);
      loss = loss + (got[i].to(torch::kFloat64).cpu() * direction).sum();
      exact_loss = exact_loss + (want[i] * direction).sum();
    }
    loss.backward();
    exact_loss.backward();
    for (size_t i = 0; i < ours.size(); ++i) {
      SCOPED_TRACE("gradient of input " + std::to_string(i));
      ExpectNear(ours[i].grad(), exact[i].grad());
    }
  }
  void ExpectNear(const Tensor& got, const Tensor& want) {
    ASSERT_EQ(got.sizes(), want.sizes());
    const Tensor difference = (got.detach().cpu().to(torch::kFloat64) - want.detach()).abs();
    EXPECT_LT(difference.max().item<double>(),
              where_.tolerance * want.detach().abs().max().item<double>());
  }

  Where where_;
};

Tensor PlainNorm(const Tensor& x, const Tensor& weight) {
  return x / (x.pow(2).mean(-1, true) + 1e-5).sqrt() * weight;
}

TEST_P(FusedOpsTest, AddsAndNormalises) {
  const Tensor weight = torch::rand({46}) + 0.5;
  for (const bool adds : {true, false}) {
    ExpectSame(
        adds ? std::vector<Tensor>{torch::randn({3, 5, 46}), torch::randn({3, 5, 46})}
             : std::vector<Tensor>{torch::randn({3, 5, 46})},
        [&](const std::vector<Tensor>& in) {
          const auto [sum, out] =
              AddRmsNorm(in[0], adds ? in[1] : Tensor(), weight.to(where_.device), 1e-5);
          return std::vector<Tensor>{sum, out};
        },
        [&](const std::vector<Tensor>& in) {
          const Tensor sum = adds ? in[0] + in[1] : in[0];
          return std::vector<Tensor>{sum, PlainNorm(sum, weight.to(torch::kFloat64))};
        });
  }
}

TEST_P(FusedOpsTest, RotatesHeads) {
  const Tensor angles = torch::rand({9, 4}) * 6;
  ExpectSame(
      {torch::randn({2, 7, 5, 8})},
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{
            RotateHeads(in[0], 3, angles.cos().to(where_.device), angles.sin().to(where_.device))};
      },
      [&](const std::vector<Tensor>& in) {
        const Tensor a = angles.slice(0, 0, 7).unsqueeze(1).to(torch::kFloat64);
        const Tensor low = in[0].slice(3, 0, 4), high = in[0].slice(3, 4);
        const Tensor turned =
            torch::cat({low * a.cos() - high * a.sin(), high * a.cos() + low * a.sin()}, 3);
        return std::vector<Tensor>{torch::cat({turned.slice(2, 0, 3), in[0].slice(2, 3)}, 2)};
      });
}

TEST_P(FusedOpsTest, GatesByItsOwnSigmoid) {
  ExpectSame(
      {torch::randn({3, 4, 20}) * 3},
      [](const std::vector<Tensor>& in) { return std::vector<Tensor>{SwiGlu(in[0])}; },
      [](const std::vector<Tensor>& in) {
        const Tensor gate = in[0].slice(2, 0, 10);
        return std::vector<Tensor>{gate * gate.sigmoid() * in[0].slice(2, 10)};
      });
}

// One entry and head after the other.
Tensor PlainAttention(const std::vector<Tensor>& in, const SeenContexts* seen) {
  const Tensor& q = in[0];
  const int64_t n = q.size(0), n_heads = q.size(1), n_tokens = q.size(2);
  const int64_t group = n_heads / in[1].size(1);
  std::vector<Tensor> entries;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<Tensor> heads;
    for (int64_t h = 0; h < n_heads; ++h) {
      std::vector<Tensor> keys, values;
      if (seen != nullptr) {
        for (const int64_t c : (*seen)[static_cast<size_t>(i)]) {
          keys.push_back(in[3][c][h / group]);
          values.push_back(in[4][c][h / group]);
        }
      }
      keys.push_back(in[1][i][h / group]);
      values.push_back(in[2][i][h / group]);
      const Tensor k = torch::cat(keys);
      const Tensor scores = q[i][h].matmul(k.t()) / std::sqrt(static_cast<double>(q.size(3)));
      const Tensor hidden =
          torch::ones({n_tokens, k.size(0)}, torch::kBool).triu(k.size(0) - n_tokens + 1);
      heads.push_back(scores.masked_fill(hidden, -1e30).softmax(-1).matmul(torch::cat(values)));
    }
    entries.push_back(torch::stack(heads));
  }
  return torch::stack(entries);
}

TEST_P(FusedOpsTest, AttendsToWhatEntriesSee) {
  std::vector<SeenContexts> cases;
  for (const int64_t d : {1, 2, 3, 4}) cases.push_back(*SeePreviousContexts(4, d));  // rings
  cases.push_back({{2, 0}, {}, {1}, {3, 1}});
  cases.push_back({{3}, {2}, {1}, {0}});
  for (size_t i = 0; i <= cases.size(); ++i) {
    SCOPED_TRACE(i);
    const SeenContexts* seen = i < cases.size() ? &cases[i] : nullptr;
    std::vector<Tensor> inputs = {torch::randn({4, 6, 12, 16}), torch::randn({4, 2, 12, 16}),
                                  torch::randn({4, 2, 12, 16})};
    if (seen != nullptr) {
      inputs.push_back(torch::randn({4, 2, 20, 16}) * 1.5);
      inputs.push_back(torch::randn({4, 2, 20, 16}));
    }
    ExpectSame(
        inputs,
        [&](const std::vector<Tensor>& in) {
          MemoryAttentionArgs args{.queries = in[0], .keys = in[1], .values = in[2]};
          args.seen = seen;
          if (seen != nullptr) {
            args.context_keys = in[3];
            args.context_values = in[4];
          }
          return std::vector<Tensor>{AttendWithMemory(args)};
        },
        [&](const std::vector<Tensor>& in) {
          return std::vector<Tensor>{PlainAttention(in, seen)};
        });
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, FusedOpsTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace fovea::train
