#include "train/adapter_writer.h"

#include <gmock/gmock.h>

#include "tests/train/tiny_trainable.h"
#include "train/model_writer.h"

namespace fovea::train {
namespace {

class AdapterWriterTest : public TinyTrainableTest {};

TEST_F(AdapterWriterTest, WhatIsWrittenIsReadAgain) {
  const auto model = Load(Options());
  Disturb(*model, 0.1);
  AdapterDescription description;
  description.window = 96;
  description.top_k = 7;
  description.reread_layers = {2};
  description.chat_template = "chatml";
  description.has_system_prompt = true;
  ASSERT_TRUE(WriteAdapter(*model, description, folder_ / "out").ok());
  // Over an older one.
  ASSERT_TRUE(WriteAdapter(*model, description, folder_ / "out").ok());
  const auto adapter = model::Adapter::Load(folder_ / "out", checkpoint_->config());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const model::MemoryConfig& memory = (*adapter)->memory_config();
  EXPECT_THAT(memory.mem_layers, testing::ElementsAre(1, 2));
  EXPECT_THAT(memory.reread_layers, testing::ElementsAre(2));
  EXPECT_EQ(memory.window, 96);
  EXPECT_EQ(memory.top_k, 7);
  EXPECT_EQ(memory.chat_template, "chatml");
  EXPECT_TRUE(memory.has_system_prompt);
  for (const TrainableParameter& parameter : model->parameters()) {
    if (!parameter.is_key_gain) continue;
    const int layer = parameter.name.find(".1.") != std::string::npos ? 1 : 2;
    const std::vector<float> gain = (*adapter)->MemoryKeyGain(layer);
    ASSERT_EQ(gain.size(), 2u);
    for (int64_t h = 0; h < 2; ++h) {
      EXPECT_FLOAT_EQ(gain[static_cast<size_t>(h)], std::exp(parameter.value[h].item<float>()));
    }
  }
  const model::LoraTensors* lora = (*adapter)->Find("model.layers.0.self_attn.q_proj");
  ASSERT_NE(lora, nullptr);
  EXPECT_EQ(lora->rank, 4);
  EXPECT_FLOAT_EQ(lora->scale, 2.0f);
}

TEST_F(AdapterWriterTest, WholeMatricesAreNoAdapter) {
  TrainableOptions options = Options();
  options.update = TrainableOptions::Update::kFull;
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteAdapter(*Load(options), {}, folder_ / "out")));
}

TEST_F(AdapterWriterTest, AModelTrainedWholeIsAFolderThatSaysTheSame) {
  TrainableOptions options = Options();
  options.update = TrainableOptions::Update::kFull;
  options.trains_key_gain = false;
  const auto trained = Load(options);
  Disturb(*trained, 0.05);
  const auto files = ReadModelFiles(folder_ / "model");
  ASSERT_TRUE(files.ok()) << files.status();
  AdapterDescription description;
  description.window = 96;
  description.base_fingerprint = "of the model that it was";
  ASSERT_TRUE(WriteModel(*trained, *files, description, folder_ / "out").ok());
  model::LoadOptions load;
  load.model = folder_ / "out";
  const auto engine = model::Transformer::Load(device_.get(), load);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_THAT((*engine)->memory_config().mem_layers, testing::ElementsAre(1, 2));
  EXPECT_EQ((*engine)->memory_config().window, 96);
  const torch::Tensor ids = RandomIds(1, 40);
  const torch::Tensor logits =
      trained->Logits(trained->Forward(trained->Compose(), ids, nullptr, nullptr)).detach();
  model::LocalContext context;
  std::vector<float> said;
  ASSERT_TRUE((*engine)->Forward(IdsOf(ids[0]), &context, nullptr, &said, true).ok());
  EXPECT_LT(Difference(logits[0], torch::from_blob(said.data(), {40, logits.size(2)})), 1e-3);
  // What it was says something else.
  const torch::Tensor before = Load(options)->Logits(
      Load(options)->Forward(Load(options)->Compose(), ids, nullptr, nullptr));
  EXPECT_GT(Difference(logits, before.detach()), 0.1);
}

TEST_F(AdapterWriterTest, AGgufFileHasNoFilesForAFolder) {
  const auto files = ReadModelFiles("model.Q4_1.gguf");
  EXPECT_TRUE(absl::IsUnimplemented(files.status()));
  EXPECT_THAT(std::string(files.status().message()), testing::HasSubstr("safetensors"));
}

}  // namespace
}  // namespace fovea::train
