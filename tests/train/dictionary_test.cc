#include <gmock/gmock.h>

#include <filesystem>
#include <map>
#include <set>

#include "base/file.h"
#include "model/weights/checkpoint.h"
#include "tests/train/tiny_trainable.h"
#include "train/dictionary_batches.h"
#include "train/dictionary_model.h"
#include "train/losses.h"
#include "train/optimizer.h"

namespace fovea::train {
namespace {

using ::testing::HasSubstr;

// By key, the values of an entry's records.
std::map<std::string, std::string> RecordsOf(const torch::Tensor& row) {
  const Tokens marks = EncodeDictionaryText(":?\n");
  std::map<std::string, std::string> records;
  const auto symbol = [&](int64_t at) {
    return texts::kDictionarySymbols[static_cast<size_t>(row[at].item<int64_t>())];
  };
  for (int64_t begin = 0; begin < row.size(0); begin += texts::kRecordSymbols) {
    std::string key, value;
    for (int64_t i = 0; i < texts::kWordSymbols; ++i) {
      key += symbol(begin + i);
      value += symbol(begin + texts::kWordSymbols + 1 + i);
    }
    EXPECT_EQ(row[begin + texts::kRecordSymbols - 1].item<int64_t>(), marks[2]);
    records[key] = value;
  }
  return records;
}

DictionaryOptions SmallBatches() {
  DictionaryOptions options;
  options.n_entries = 8;
  options.n_records = 6;
  options.n_short_records = 2;
  options.n_short_steps = 5;
  options.seed = 3;
  return options;
}

TEST(DictionaryBatchesTest, QuestionsAskForTheOwnContextsDefinitions) {
  const auto batches = DictionaryBatches::Create(SmallBatches());
  ASSERT_TRUE(batches.ok()) << batches.status();
  const auto batch = (*batches)->Make(7, 4);
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ(batch->contexts.sizes(), (std::vector<int64_t>{8, 60}));
  ASSERT_EQ(batch->queries.sizes(), (std::vector<int64_t>{8, 60}));
  ASSERT_EQ(batch->seen.size(), 8u);
  EXPECT_EQ(batch->seen[6], (std::vector<int64_t>{6, 7, 0, 1}));
  std::set<std::string> keys;
  for (int64_t entry = 0; entry < 8; ++entry) {
    const auto definitions = RecordsOf(batch->contexts[entry]);
    ASSERT_EQ(definitions.size(), 6u);
    EXPECT_EQ(RecordsOf(batch->queries[entry]), definitions);
    for (const auto& [key, value] : definitions) EXPECT_TRUE(keys.insert(key).second) << key;
    for (int64_t i = 0; i < 60; ++i) {
      const bool is_asked = i % 10 >= 4 && i % 10 < 8;
      EXPECT_EQ(batch->targets[entry][i].item<int64_t>(),
                is_asked ? batch->queries[entry][i + 1].item<int64_t>() : -100);
    }
    const Ask& own = batch->own[static_cast<size_t>(entry)];
    EXPECT_EQ(batch->queries[entry][own.position].item<int64_t>(), EncodeDictionaryText("?")[0]);
    EXPECT_EQ(own.memory_end, 60);
  }
}

TEST(DictionaryBatchesTest, FirstStepsHaveShortContextsAndAsManyTokens) {
  const auto batches = DictionaryBatches::Create(SmallBatches());
  ASSERT_TRUE(batches.ok()) << batches.status();
  const auto batch = (*batches)->Make(4, 1);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->contexts.sizes(), (std::vector<int64_t>{24, 20}));
  const auto again = (*batches)->Make(4, 1);
  EXPECT_TRUE(torch::equal(batch->contexts, again->contexts));
  EXPECT_FALSE(torch::equal(batch->contexts, (*batches)->Make(3, 1)->contexts));
}

TEST(DictionaryBatchesTest, TheShareOfKeysWithLookAlikesIsWhatWasAskedFor) {
  const auto share_of = [](double look_alike_share) {
    DictionaryOptions options;
    options.n_short_steps = 0;
    options.look_alike_share = look_alike_share;
    const auto batch = (*DictionaryBatches::Create(options))->Make(0, 1);
    std::vector<std::string> keys;
    for (int64_t entry = 0; entry < options.n_entries; ++entry) {
      for (const auto& [key, value] : RecordsOf(batch->contexts[entry])) keys.push_back(key);
    }
    // Keys by what is left of them without one of their symbols.
    std::map<std::string, int> n_of;
    const auto without = [](std::string key, size_t place) {
      key[place] = ' ';
      return key;
    };
    for (const std::string& key : keys) {
      for (size_t place = 0; place < 4; ++place) ++n_of[without(key, place)];
    }
    double n = 0.0;
    for (const std::string& key : keys) {
      bool has = false;
      for (size_t place = 0; place < 4; ++place) has |= n_of[without(key, place)] > 1;
      n += has ? 1.0 : 0.0;
    }
    return n / static_cast<double>(keys.size());
  };
  EXPECT_LT(share_of(0.0), 0.1);
  EXPECT_NEAR(share_of(0.5), 0.5, 0.12);
  EXPECT_GT(share_of(1.0), 0.9);
}

TEST(DictionaryBatchesTest, OptionsThatMakeNoBatchAreNamed) {
  DictionaryOptions options;
  options.look_alike_share = 1.5;
  EXPECT_THAT(std::string(DictionaryBatches::Create(options).status().message()),
              HasSubstr("1.5 of them"));
  options = DictionaryOptions();
  options.n_short_records = 26;
  EXPECT_FALSE(DictionaryBatches::Create(options).ok());
  options = DictionaryOptions();
  options.n_entries = int64_t{1} << 29;
  EXPECT_THAT(std::string(DictionaryBatches::Create(options).status().message()),
              HasSubstr("too few keys"));
}

class DictionaryModelTest : public TinyTrainableTest {
 protected:
  static std::unique_ptr<TrainableModel> Create(double temperature = 16.0) {
    TrainableOptions options;
    options.update = TrainableOptions::Update::kScratch;
    options.mem_layers = {1};
    options.mem_positionals = false;
    options.trains_key_gain = false;
    options.first_temperature = temperature;
    options.seed = 5;
    auto model = TrainableModel::Create(
        DictionaryModelConfig(
            {.n_layers = 3, .hidden_size = 64, .n_heads = 4, .intermediate_size = 96}),
        options);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }
};

TEST_F(DictionaryModelTest, AWrittenModelSaysWhatTheTrainedOneSays) {
  const auto trained = Create();
  Disturb(*trained, 0.1);
  AdapterDescription description;
  description.window = 60;
  description.top_k = 128;
  const auto files = DictionaryModelFiles(trained->config());
  ASSERT_TRUE(WriteModel(*trained, files, description, folder_ / "dictionary").ok());
  model::LoadOptions load;
  load.model = folder_ / "dictionary";
  const auto model = model::Transformer::Load(device_.get(), load);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->memory_config().mem_layers, std::vector<int>{1});
  EXPECT_FALSE((*model)->memory_config().mem_positionals);
  EXPECT_EQ((*model)->memory_config().top_k, 128);
  EXPECT_TRUE((*model)->config().qk_norm);

  std::string text;
  texts::Random random(1, 1);
  for (int i = 0; i < 3; ++i) {
    texts::AppendRecord({static_cast<uint32_t>(random.Below(texts::kDictionaryWords)),
                         static_cast<uint32_t>(random.Below(texts::kDictionaryWords))},
                        i == 2 ? texts::kAsks : texts::kDefines, &text);
  }
  const Tokens ids = EncodeDictionaryText(text);
  EXPECT_EQ((*model)->tokenizer().Encode(text).ids, ids);
  const torch::Tensor row =
      torch::tensor(std::vector<int64_t>(ids.begin(), ids.end()), torch::kInt64).unsqueeze(0);
  const torch::Tensor wanted =
      trained->Logits(trained->Forward(trained->Compose(), row, nullptr, nullptr)).detach()[0];
  model::LocalContext context;
  std::vector<float> logits;
  ASSERT_TRUE((*model)->Forward(ids, &context, nullptr, &logits, /*all_logits=*/true).ok());
  const torch::Tensor said =
      torch::from_blob(logits.data(), {row.size(1), kDictionaryTokens}, torch::kFloat32);
  EXPECT_LT(Difference(said, wanted), 1e-3);
  EXPECT_GT(wanted.abs().max().item<double>(), 0.1);

  // What a memory takes: the keys and values that contexts have in training, rounded to bfloat16.
  const ContextEntries entries = trained->Encode(trained->Compose(), row);
  const model::WindowTokens window{.context = {}, .tokens = ids};
  const auto encoded = (*model)->Encode({&window, 1});
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  const torch::Tensor keys = entries.keys[0][0].transpose(0, 1).contiguous().flatten().detach();
  ASSERT_EQ((*encoded)[0].keys[0].size(), static_cast<size_t>(keys.numel()));
  for (int64_t i = 0; i < keys.numel(); ++i) {
    const float want = keys.data_ptr<float>()[i];
    ASSERT_NEAR((*encoded)[0].keys[0][static_cast<size_t>(i)], want, 0.01 * std::abs(want) + 1e-3);
  }
}

TEST_F(DictionaryModelTest, TheFirstTemperatureIsThatOfTheMemoryLayer) {
  const auto model = Create(32.0);
  for (const TrainableParameter& parameter : model->parameters()) {
    if (!parameter.is_norm) continue;
    const bool of_memory = parameter.name.find("layers.1.") != std::string::npos;
    // Heads of 16 have a norm of 4, and scores are divided by 4.
    EXPECT_NEAR(parameter.value.max().item<double>(), of_memory ? std::sqrt(32.0 / 4.0) : 1.0, 1e-5)
        << parameter.name;
  }
}

TEST_F(DictionaryModelTest, ARunLearnsToLookUp) {
  // One record a context: which it is needs no search, what it says has to be read from the memory.
  DictionaryOptions options;
  options.n_entries = 64;
  options.n_records = 1;
  options.n_short_records = 1;
  options.n_short_steps = 0;
  options.look_alike_share = 0.0;
  const auto batches = *DictionaryBatches::Create(options);
  const auto model = Create();
  Optimizer optimizer(model->parameters(), {});
  const auto run = [&](uint64_t step) {
    const TrainingBatch batch = *batches->Make(step, 1);
    const auto weights = model->Compose();
    const ContextEntries entries = model->Encode(weights, batch.contexts);
    const SeenMemory memory{&entries, &batch.seen};
    const torch::Tensor hidden = model->Forward(weights, batch.queries, &memory, nullptr);
    NextTokenLoss(*model, hidden, batch.targets, {}).backward();
    return NextTokenAccuracy(*model, hidden, batch.targets).item<double>();
  };
  const double before = run(0);
  double after = 0.0;
  for (uint64_t step = 1; step < 400 && after < 0.9; ++step) {
    optimizer.Step(2e-3);
    after = run(step);
  }
  EXPECT_LT(before, 0.1);
  EXPECT_GT(after, 0.9);
}

}  // namespace
}  // namespace fovea::train
