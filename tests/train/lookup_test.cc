// A run from random weights that learns to look up in a memory what stands nowhere else.
#include "tests/train/tiny_trainable.h"
#include "train/losses.h"
#include "train/optimizer.h"

namespace fovea::train {
namespace {

class LookupTest : public TinyTrainableTest {};

constexpr int64_t kEntries = 32;
constexpr int64_t kPairs = 6;
constexpr int64_t kFirstKey = 32, kFirstValue = 96, kWords = 24;

struct LookupBatch {
  torch::Tensor contexts, queries, targets;
  std::vector<Ask> asks;
};

// Contexts of pairs "key value"; each entry asks for a key of its own context.
LookupBatch MakeBatch() {
  LookupBatch batch;
  batch.contexts = torch::zeros({kEntries, 2 * kPairs}, torch::kInt64);
  batch.queries = torch::zeros({kEntries, 1}, torch::kInt64);
  batch.targets = torch::zeros({kEntries, 1}, torch::kInt64);
  for (int64_t i = 0; i < kEntries; ++i) {
    const torch::Tensor keys = torch::randperm(kWords, torch::kInt64);
    const torch::Tensor values = torch::randint(kWords, {kPairs}, torch::kInt64);
    for (int64_t p = 0; p < kPairs; ++p) {
      batch.contexts[i][2 * p] = kFirstKey + keys[p];
      batch.contexts[i][2 * p + 1] = kFirstValue + values[p];
    }
    const auto asked = torch::randint(kPairs, {1}, torch::kInt64).item<int64_t>();
    batch.queries[i][0] = kFirstKey + keys[asked];
    batch.targets[i][0] = kFirstValue + values[asked];
    batch.asks.push_back({i, 0, 2 * asked + 1, 2 * asked + 2});
  }
  return batch;
}

TEST_F(LookupTest, ARunFromRandomWeightsLearnsIt) {
  TrainableOptions options = Options();
  options.update = TrainableOptions::Update::kFull;
  const auto model = Load(options);
  Optimizer optimizer(model->parameters(), {});
  const auto seen = *SeePreviousContexts(kEntries, 1);
  const double scale = 1.0 / std::sqrt(memory::kTinyHeadDim);
  const auto loss_of = [&](const LookupBatch& batch, double* right) {
    const auto weights = model->Compose();
    const ContextEntries entries = model->Encode(weights, batch.contexts);
    const SeenMemory memory{&entries, &seen};
    MassLoss mass(batch.asks, {0, 1});
    const MassProbe probe = mass.Probe(scale);
    const torch::Tensor hidden = model->Forward(weights, batch.queries, &memory, &probe);
    if (right != nullptr) {
      const torch::Tensor said = model->Logits(hidden.select(1, 0)).argmax(-1);
      *right = said.eq(batch.targets.select(1, 0)).to(torch::kFloat64).mean().item<double>();
    }
    return NextTokenLoss(*model, hidden, batch.targets, {}) + 0.5 * mass.Mean();
  };
  double before = 0.0, after = 0.0;
  (void)loss_of(MakeBatch(), &before);
  for (int step = 0; step < 1200; ++step) {
    loss_of(MakeBatch(), nullptr).backward();
    optimizer.Step(3e-3);
  }
  (void)loss_of(MakeBatch(), &after);
  EXPECT_LT(before, 0.3);
  EXPECT_GT(after, 0.9);
}

}  // namespace
}  // namespace fovea::train
