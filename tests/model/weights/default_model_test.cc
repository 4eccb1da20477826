// The model that fovea downloads by default, read as users have it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "compute/dtype.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {
namespace {

std::filesystem::path DefaultModel() {
  const char* fovea_home = std::getenv("FOVEA_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path folder = fovea_home != nullptr ? std::filesystem::path(fovea_home)
                                       : home != nullptr
                                           ? std::filesystem::path(home) / ".local/share/fovea"
                                           : std::filesystem::path();
  return folder / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class DefaultModelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(DefaultModel())) {
      GTEST_SKIP() << DefaultModel() << " is absent: `fovea pull` fetches it";
    }
    auto checkpoint = Checkpoint::Open(DefaultModel());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
  }
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(DefaultModelTest, ConfigurationIsThatOfSmolLm2) {
  const ModelConfig& config = checkpoint_->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.intermediate_size, 1536);
  EXPECT_EQ(config.n_layers, 30);
  EXPECT_EQ(config.n_heads, 9);
  EXPECT_EQ(config.n_kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.max_position_embeddings, 8192);
  EXPECT_EQ(config.rope_theta, 100000.0f);
  EXPECT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_TRUE(config.rope_factors.empty());
  EXPECT_TRUE(checkpoint_->memory_config().mem_layers.empty());
}

TEST_F(DefaultModelTest, TokenizerIsComplete) {
  const TokenizerSpec& spec = checkpoint_->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kByteLevelBpe);
  EXPECT_EQ(spec.pre_tokenizer, "smollm");
  EXPECT_EQ(spec.tokens.size(), 49152u);
  EXPECT_EQ(spec.merges.size(), 48900u);
  EXPECT_EQ(spec.tokens[1], "<|im_start|>");
  EXPECT_EQ(spec.types[1], TokenType::kControl);
  EXPECT_EQ(spec.types[1000], TokenType::kNormal);
  EXPECT_EQ(spec.bos_id, 1);
  EXPECT_EQ(spec.eos_id, 2);
  EXPECT_EQ(spec.extra_end_ids, std::vector<int32_t>{0});  // <|endoftext|>
  EXPECT_FALSE(spec.add_bos);
  EXPECT_FALSE(spec.add_space_prefix);
  EXPECT_NE(spec.chat_template.find("<|im_start|>"), std::string::npos);
}

TEST_F(DefaultModelTest, AllTensorsAreThere) {
  EXPECT_EQ(checkpoint_->tensors().size(), 272u);
  auto q = checkpoint_->Find("model.layers.29.self_attn.q_proj.weight", {576, 576});
  ASSERT_TRUE(q.ok()) << q.status();
  EXPECT_EQ((*q)->dtype, compute::DType::kQ4_1);
  EXPECT_EQ((*q)->size_bytes, 576u * 576 / 32 * 20);
  EXPECT_EQ(checkpoint_->FindOrNull("lm_head.weight"), nullptr);
}

TEST_F(DefaultModelTest, FingerprintStaysWhatMemoriesAndAdaptersSay) {
  // Stored in every memory and in fot_config.json of adapters: another value orphans them all.
  EXPECT_EQ(checkpoint_->Fingerprint().ToHex(), "66b3c373b9c81a6b1b1987b2d172f672");
}

TEST_F(DefaultModelTest, FingerprintIsStableAcrossOpenings) {
  auto again = Checkpoint::Open(DefaultModel());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->Fingerprint(), checkpoint_->Fingerprint());
}

TEST_F(DefaultModelTest, DefaultAdapterFits) {
  auto adapter =
      Adapter::Load(FOVEA_SOURCE_DIR "/models/smollm2-135m-fot-5", checkpoint_->config());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const MemoryConfig& memory = (*adapter)->memory_config();
  EXPECT_EQ(memory.mem_layers, (std::vector<int>{8, 18, 23}));
  EXPECT_TRUE(memory.trained);
  EXPECT_TRUE(memory.mem_positionals);
  EXPECT_EQ(memory.window, 1024);
  EXPECT_EQ(memory.top_k, 16);
  EXPECT_EQ(memory.encoding, "window-local");
  EXPECT_EQ(memory.chat_template, "chatml");
  EXPECT_TRUE(memory.has_system_prompt);
  EXPECT_EQ(memory.system_prompt, "");
  const LoraTensors* lora = (*adapter)->Find("model.layers.7.mlp.down_proj");
  ASSERT_NE(lora, nullptr);
  EXPECT_EQ(lora->rank, 16);
  EXPECT_EQ(lora->in_features, 1536);
  EXPECT_EQ(lora->out_features, 576);
  EXPECT_EQ(lora->scale, 2.0f);
  EXPECT_EQ((*adapter)->MemoryKeyGain(8).size(), 3u);
  EXPECT_TRUE((*adapter)->MemoryKeyGain(9).empty());
}

}  // namespace
}  // namespace fovea::model
