#include "train/losses.h"

#include "tests/train/tiny_trainable.h"

namespace fovea::train {
namespace {

class LossesTest : public TinyTrainableTest {};

TEST_F(LossesTest, NextTokenLossCountsItsTargetsByWeight) {
  const auto model = Load(Options());
  const torch::Tensor ids = RandomIds(2, 10);
  const torch::Tensor hidden = model->Forward(model->Compose(), ids, nullptr, nullptr);
  torch::Tensor targets = torch::full({2, 10}, -100, torch::kInt64);
  targets[0][3] = 17;
  targets[1][5] = 200;
  targets[1][9] = 4;
  const torch::Tensor log_p = torch::log_softmax(model->Logits(hidden).to(torch::kFloat64), -1);
  const double a = -log_p[0][3][17].item<double>();
  const double b = -log_p[1][5][200].item<double>() - log_p[1][9][4].item<double>();
  EXPECT_NEAR(NextTokenLoss(*model, hidden, targets, {}).item<double>(), (a + b) / 3, 1e-5);
  EXPECT_NEAR(NextTokenLoss(*model, hidden, targets, torch::tensor({1.0f, 0.25f})).item<double>(),
              (a + 0.25 * b) / 1.5, 1e-5);
  targets.fill_(-100);
  EXPECT_EQ(NextTokenLoss(*model, hidden, targets, {}).item<double>(), 0.0);
}

// Against a sum in float64; what the teacher said is taken as it is.
TEST_F(LossesTest, DistillationIsTheDivergenceFromTheTeacher) {
  const auto model = Load(Options());
  const torch::Tensor ids = RandomIds(2, 10);
  torch::Tensor hidden =
      model->Forward(model->Compose(), ids, nullptr, nullptr).detach().requires_grad_();
  torch::Tensor teacher = torch::randn({2, 14, hidden.size(2)}).requires_grad_();
  const std::vector<Taught> taught = {{0, 3, 13}, {1, 9, 0}, {1, 2, 6}};
  const torch::Tensor loss = DistillationLoss(*model, hidden, teacher, taught);
  double want = 0.0;
  for (const Taught& t : taught) {
    const auto log_p = [&](const torch::Tensor& state) {
      return torch::log_softmax(model->Logits(state.unsqueeze(0)).to(torch::kFloat64), -1)[0];
    };
    const torch::Tensor p = log_p(teacher[t.entry][t.teacher_position]);
    want += (p.exp() * (p - log_p(hidden[t.entry][t.position]))).sum().item<double>() / 3;
  }
  EXPECT_NEAR(loss.item<double>(), want, 1e-5);
  EXPECT_GT(want, 0.01);
  loss.backward();
  EXPECT_FALSE(teacher.grad().defined());
  EXPECT_GT(hidden.grad()[1][9].abs().sum().item<double>(), 0.0);
  EXPECT_EQ(hidden.grad()[0][4].abs().sum().item<double>(), 0.0);
  EXPECT_NEAR(DistillationLoss(*model, hidden, hidden, {{0, 5, 5}}).item<double>(), 0.0, 1e-6);
  EXPECT_NEAR(DistillationLoss(*model, hidden, hidden, {{0, 5, 5}, {0, 1, 7}}, 1).item<double>(),
              0.0, 1e-6);
}

// The share of each ask's own stretch, by a loop in float64.
TEST_F(LossesTest, MassLossIsTheNaiveShareOfAttention) {
  constexpr int64_t kEntries = 2, kHeads = 4, kKv = 2, kTokens = 6, kDim = 8;
  constexpr int64_t kContexts = 3, kContextTokens = 10;
  const torch::Tensor queries = torch::randn({kEntries, kHeads, kTokens, kDim});
  const torch::Tensor keys = torch::randn({kContexts, kKv, kContextTokens, kDim});
  const SeenContexts seen = {{1, 2}, {2, 0, 1}};
  const std::vector<Ask> asks = {{1, 5, 3, 9}, {1, 0, 10, 20}, {0, 2, 19, 20}, {1, 3, 24, 26}};
  MassLoss loss(asks, {1});
  const MassProbe probe = loss.Probe(0.5);
  probe(0, queries, keys, seen);
  EXPECT_FALSE(loss.Mean().defined());
  probe(1, queries, keys, seen);
  double want = 0.0, want_mass = 0.0;
  for (const Ask& ask : asks) {
    double mean = 0.0;
    for (int64_t head = 0; head < kHeads; ++head) {
      double own = 0.0, all = 0.0;
      const auto& contexts = seen[static_cast<size_t>(ask.entry)];
      for (int64_t t = 0; t < static_cast<int64_t>(contexts.size()) * kContextTokens; ++t) {
        const int64_t context = contexts[static_cast<size_t>(t / kContextTokens)];
        const double score = 0.5 * queries[ask.entry][head][ask.position]
                                       .dot(keys[context][head * kKv / kHeads][t % kContextTokens])
                                       .item<double>();
        all += std::exp(score);
        if (t >= ask.memory_begin && t < ask.memory_end) own += std::exp(score);
      }
      mean += own / all / kHeads;
    }
    want -= std::log(mean) / static_cast<double>(asks.size());
    want_mass += mean / static_cast<double>(asks.size());
  }
  EXPECT_NEAR(loss.Mean().item<double>(), want, 1e-5);
  EXPECT_NEAR(loss.MeanMass()[0], want_mass, 1e-5);
}

}  // namespace
}  // namespace fovea::train
