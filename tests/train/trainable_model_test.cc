// The differentiable model against fovea's own engine, against naive loops and finite differences.
#include "train/trainable_model.h"

#include "model/dense_memory.h"
#include "tests/train/tiny_trainable.h"
#include "train/adapter_writer.h"
#include "train/losses.h"

namespace fovea::train {
namespace {

constexpr double kTolerance = 1e-3;  // of logits of a few units

class TrainableModelTest : public TinyTrainableTest {};

TEST_F(TrainableModelTest, GivesTheLogitsOfTheEngine) {
  const auto model = Load(Options());
  auto engine = memory::LoadTinyModel(device_.get(), folder_ / "model");
  ASSERT_TRUE(engine.ok()) << engine.status();
  const torch::Tensor ids = RandomIds(2, 40);
  const torch::Tensor logits =
      model->Logits(model->Forward(model->Compose(), ids, nullptr, nullptr)).detach();
  for (int64_t row = 0; row < 2; ++row) {
    model::LocalContext context;
    std::vector<float> expected;
    ASSERT_TRUE((*engine)->Forward(IdsOf(ids[row]), &context, nullptr, &expected, true).ok());
    const torch::Tensor want = torch::from_blob(expected.data(), {40, model->config().vocab_size});
    EXPECT_LT(Difference(logits[row], want), kTolerance);
  }
}

// An adapter that was written, with contexts in the memory: dense attention to all of them.
TEST_F(TrainableModelTest, GivesTheLogitsOfTheEngineWithAMemoryAndAnAdapter) {
  const auto trained = Load(Options());
  Disturb(*trained, 0.1);
  AdapterDescription description;
  description.window = 64;
  ASSERT_TRUE(WriteAdapter(*trained, description, folder_ / "adapter").ok());
  auto adapter = model::Adapter::Load(folder_ / "adapter", checkpoint_->config());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  // With the values as they were rounded.
  const auto model = Load(Options(), adapter->get());
  EXPECT_EQ(model->parameters().size(), trained->parameters().size());
  model::LoadOptions options;
  options.model = folder_ / "model";
  options.adapter = folder_ / "adapter";
  auto engine = model::Transformer::Load(device_.get(), options);
  ASSERT_TRUE(engine.ok()) << engine.status();

  const torch::Tensor contexts = RandomIds(3, 32);
  const auto weights = model->Compose();
  const ContextEntries entries = model->Encode(weights, contexts);
  model::DenseMemory memory(device_.get(), EntryType::kFloat32);
  for (int64_t c = 0; c < 3; ++c) {
    const std::vector<int32_t> ids = IdsOf(contexts[c]);
    // As a memory keeps them, but for its rounding to bfloat16.
    const model::WindowTokens window{.context = {}, .tokens = ids};
    auto encoded = (*engine)->Encode({&window, 1});
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    model::MemoryEntries stored;
    stored.n_tokens = 32;
    for (size_t m = 0; m < 2; ++m) {
      const auto of_token_first = [&](const torch::Tensor& x) {
        const torch::Tensor flat = x[c].transpose(0, 1).contiguous().flatten().detach();
        return std::vector<float>(flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
      };
      stored.keys.push_back(of_token_first(entries.keys[m]));
      stored.values.push_back(of_token_first(entries.values[m]));
      ASSERT_EQ((*encoded)[0].keys[m].size(), stored.keys[m].size());
      for (size_t i = 0; i < stored.keys[m].size(); ++i) {
        ASSERT_NEAR((*encoded)[0].keys[m][i], stored.keys[m][i],
                    0.01 * std::abs(stored.keys[m][i]) + 1e-3);
        ASSERT_NEAR((*encoded)[0].values[m][i], stored.values[m][i],
                    0.01 * std::abs(stored.values[m][i]) + 1e-3);
      }
    }
    ASSERT_TRUE(memory.Append(std::move(stored)).ok());
  }
  const torch::Tensor ids = RandomIds(1, 24);
  const SeenContexts seen = {{0, 1, 2}};
  const SeenMemory seen_memory{&entries, &seen};
  const torch::Tensor logits =
      model->Logits(model->Forward(weights, ids, &seen_memory, nullptr)).detach();
  model::LocalContext context;
  std::vector<float> expected;
  ASSERT_TRUE((*engine)->Forward(IdsOf(ids[0]), &context, &memory, &expected, true).ok());
  const torch::Tensor want = torch::from_blob(expected.data(), {24, model->config().vocab_size});
  EXPECT_LT(Difference(logits[0], want), kTolerance);
  // The memory is what makes the difference here.
  const torch::Tensor without = model->Logits(model->Forward(weights, ids, nullptr, nullptr));
  EXPECT_GT(Difference(without[0].detach(), want), 100 * kTolerance);
}

// Entries together give what each gives alone, whatever the others see.
TEST_F(TrainableModelTest, ABatchIsTheNaiveLoopOverItsEntries) {
  const auto model = Load(Options());
  Disturb(*model, 0.1);
  const auto weights = model->Compose();
  const torch::Tensor contexts = RandomIds(4, 16);
  const torch::Tensor ids = RandomIds(4, 20);
  const SeenContexts seen = {{0, 1, 2}, {}, {3}, {2, 3, 0}};
  const ContextEntries entries = model->Encode(weights, contexts);
  const SeenMemory memory{&entries, &seen};
  const torch::Tensor together = model->Forward(weights, ids, &memory, nullptr).detach();
  for (int64_t row = 0; row < 4; ++row) {
    const auto& of_row = seen[static_cast<size_t>(row)];
    torch::Tensor alone;
    if (of_row.empty()) {
      alone = model->Forward(weights, ids.slice(0, row, row + 1), nullptr, nullptr);
    } else {
      std::vector<torch::Tensor> its;
      for (const int64_t c : of_row) its.push_back(contexts[c]);
      const ContextEntries own = model->Encode(weights, torch::stack(its));
      SeenContexts all(1);
      for (size_t i = 0; i < its.size(); ++i) all[0].push_back(static_cast<int64_t>(i));
      const SeenMemory its_memory{&own, &all};
      alone = model->Forward(weights, ids.slice(0, row, row + 1), &its_memory, nullptr);
    }
    EXPECT_LT(Difference(together[row], alone[0].detach()), 1e-4) << row;
  }
}

// LongLLaMA's form: entries are contexts of later ones, with what they themselves saw in them.
TEST_F(TrainableModelTest, EntriesAreContextsOfLaterOnes) {
  const auto model = Load(Options());
  const auto weights = model->Compose();
  const torch::Tensor ids = RandomIds(4, 12);
  const auto seen = SeeEarlierEntries(4, {.packing = 2, .range = 2});
  ASSERT_TRUE(seen.ok());
  const SeenMemory memory{nullptr, &*seen};
  const torch::Tensor hidden = model->Forward(weights, ids, &memory, nullptr).detach();
  // The first sees nothing; the first memory layer of entry 1 sees that of entry 0 as it is alone,
  // the second one what entry 0 became.
  EXPECT_LT(Difference(hidden[0], model->Forward(weights, ids.slice(0, 0, 1), nullptr, nullptr)[0]),
            1e-4);
  const ContextEntries of_first = model->Encode(weights, ids.slice(0, 0, 1));
  const SeenContexts first = {{0}};
  const SeenMemory first_memory{&of_first, &first};
  EXPECT_LT(
      Difference(hidden[1], model->Forward(weights, ids.slice(0, 1, 2), &first_memory, nullptr)[0]),
      1e-4);
  // A change of a later entry changes no earlier one.
  torch::Tensor changed = ids.clone();
  changed[2].fill_(9);
  const torch::Tensor again = model->Forward(weights, changed, &memory, nullptr).detach();
  EXPECT_EQ(Difference(hidden.slice(0, 0, 2), again.slice(0, 0, 2)), 0.0);
  EXPECT_GT(Difference(hidden[3], again[3]), 1e-3);
}

TEST_F(TrainableModelTest, NothingIsSeenOfWhatComesLater) {
  const auto model = Load(Options());
  const auto weights = model->Compose();
  const ContextEntries entries = model->Encode(weights, RandomIds(2, 16));
  const SeenContexts seen = {{0, 1}, {1, 0}};
  const SeenMemory memory{&entries, &seen};
  const torch::Tensor ids = RandomIds(2, 20);
  torch::Tensor changed = ids.clone();
  changed.slice(1, 12).fill_(3);
  const torch::Tensor before = model->Forward(weights, ids, &memory, nullptr).detach();
  const torch::Tensor after = model->Forward(weights, changed, &memory, nullptr).detach();
  EXPECT_EQ(Difference(before.slice(1, 0, 12), after.slice(1, 0, 12)), 0.0);
  EXPECT_GT(Difference(before.slice(1, 12), after.slice(1, 12)), 1e-3);
}

// Along random directions of all parameters together, for each way of training.
TEST_F(TrainableModelTest, GradientsAreThoseOfFiniteDifferences) {
  for (const auto update : {TrainableOptions::Update::kLora, TrainableOptions::Update::kFull,
                            TrainableOptions::Update::kNone}) {
    TrainableOptions options = Options();
    options.update = update;
    const auto model = Load(options);
    Disturb(*model, 0.05);
    const torch::Tensor contexts = RandomIds(3, 16);
    const torch::Tensor ids = RandomIds(3, 16);
    const auto seen = SeePreviousContexts(3, 2);
    ASSERT_TRUE(seen.ok());
    torch::Tensor targets = torch::cat({ids.slice(1, 1), torch::full({3, 1}, -100)}, 1);
    const auto loss = [&] {
      const auto weights = model->Compose();
      const ContextEntries entries = model->Encode(weights, contexts);
      const SeenMemory memory{&entries, &*seen};
      MassLoss mass({{0, 15, 0, 16}, {0, 7, 2, 9}, {2, 10, 16, 32}}, {0, 1});
      const MassProbe probe = mass.Probe(1.0 / std::sqrt(memory::kTinyHeadDim));
      const torch::Tensor hidden = model->Forward(weights, ids, &memory, &probe);
      return NextTokenLoss(*model, hidden, targets, {}) + 0.5 * mass.Mean();
    };
    loss().backward();
    for (int trial = 0; trial < 3; ++trial) {
      double along = 0.0;
      std::vector<torch::Tensor> direction;
      for (const TrainableParameter& parameter : model->parameters()) {
        ASSERT_TRUE(parameter.value.grad().defined()) << parameter.name;
        direction.push_back(torch::randn_like(parameter.value));
        along += (parameter.value.grad() * direction.back()).sum().item<double>();
      }
      constexpr double kStep = 2e-3;
      const auto move = [&](double by) {
        torch::NoGradGuard guard;
        for (size_t i = 0; i < direction.size(); ++i) {
          torch::Tensor value = model->parameters()[i].value;
          value.add_(direction[i] * by);
        }
      };
      move(kStep);
      const double above = loss().item<double>();
      move(-2 * kStep);
      const double below = loss().item<double>();
      move(kStep);
      EXPECT_NEAR((above - below) / (2 * kStep), along, 0.03 * std::abs(along) + 0.02);
    }
  }
}

TEST_F(TrainableModelTest, RefusesWhatDoesNotFit) {
  TrainableOptions options = Options();
  options.mem_layers = {};
  EXPECT_TRUE(
      absl::IsInvalidArgument(TrainableModel::Load(*checkpoint_, nullptr, options).status()));
  options.mem_layers = {1, 3};
  EXPECT_TRUE(
      absl::IsInvalidArgument(TrainableModel::Load(*checkpoint_, nullptr, options).status()));
  options = Options();
  options.lora_rank = memory::kTinyHiddenSize + 1;
  EXPECT_TRUE(
      absl::IsInvalidArgument(TrainableModel::Load(*checkpoint_, nullptr, options).status()));
  options.lora_rank = 0;
  EXPECT_TRUE(
      absl::IsInvalidArgument(TrainableModel::Load(*checkpoint_, nullptr, options).status()));
}

}  // namespace
}  // namespace fovea::train
