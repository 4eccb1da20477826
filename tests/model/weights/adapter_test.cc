#include "model/weights/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "file_writers.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = 16;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.n_layers = 2;
  config.n_heads = 2;
  config.n_kv_heads = 1;
  config.head_dim = 4;
  return config;
}

constexpr char kPrefix[] = "base_model.model.model.layers.";
constexpr char kConfigJson[] = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6})";

// LoRA of rank 2 for k_proj [4, 8] of layer 1.
std::vector<NamedTensor> KeyLora() {
  const std::string module = std::string(kPrefix) + "1.self_attn.k_proj";
  return {{module + ".lora_A.weight", {2, 8}, std::vector<float>(16, 0.5f)},
          {module + ".lora_B.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}}};
}

class AdapterTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Adapter>> Load(std::string_view config_json = kConfigJson,
                                                const std::vector<NamedTensor>& tensors = KeyLora(),
                                                std::string_view fot_config = "") {
    folder_.Write("adapter_config.json", config_json);
    folder_.Write("adapter_model.safetensors", SafetensorsOf(tensors));
    std::filesystem::remove(folder_ / "fot_config.json");
    if (!fot_config.empty()) folder_.Write("fot_config.json", fot_config);
    return Adapter::Load(folder_.path(), Config());
  }
  static void ExpectRefused(const absl::StatusOr<std::unique_ptr<Adapter>>& adapter,
                            absl::StatusCode code, const std::string& message) {
    ASSERT_FALSE(adapter.ok());
    EXPECT_EQ(adapter.status().code(), code) << adapter.status();
    EXPECT_THAT(adapter.status().ToString(), HasSubstr(message));
    EXPECT_THAT(adapter.status().ToString(),
                HasSubstr("(--adapter DIR), or none (--adapter none)"));  // the way out
  }
  TempFolder folder_;
};

TEST_F(AdapterTest, PlainLoraHasNoMemory) {
  const auto adapter = Load();
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_TRUE((*adapter)->memory_config().mem_layers.empty());
  EXPECT_FALSE((*adapter)->memory_config().trained);
  const LoraTensors* lora = (*adapter)->Find("model.layers.1.self_attn.k_proj");
  ASSERT_NE(lora, nullptr);
  EXPECT_EQ(lora->rank, 2);
  EXPECT_EQ(lora->in_features, 8);
  EXPECT_EQ(lora->out_features, 4);
  EXPECT_EQ(lora->scale, 3.0f);
  EXPECT_EQ(lora->a, std::vector<float>(16, 0.5f));
  EXPECT_THAT(lora->b, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_EQ((*adapter)->Find("model.layers.0.self_attn.k_proj"), nullptr);
  EXPECT_TRUE((*adapter)->MemoryKeyGain(1).empty());
}

TEST_F(AdapterTest, HonoursRankStabilisationAndPatterns) {
  const auto stabilised =
      Load(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_rslora": true})");
  ASSERT_TRUE(stabilised.ok()) << stabilised.status();
  EXPECT_FLOAT_EQ((*stabilised)->Find("model.layers.1.self_attn.k_proj")->scale,
                  6.0f / std::sqrt(2.0f));
  const auto patterns = Load(R"({"peft_type": "LORA", "r": 16, "lora_alpha": 6,
      "rank_pattern": {"k_proj": 2, "q_proj": 3}, "alpha_pattern": {"self_attn.k_proj": 5}})");
  ASSERT_TRUE(patterns.ok()) << patterns.status();
  EXPECT_EQ((*patterns)->Find("model.layers.1.self_attn.k_proj")->scale, 2.5f);
  ExpectRefused(Load(R"({"peft_type": "LORA", "r": 2, "rank_pattern": {"^model.*k_proj": 2}})"),
                absl::StatusCode::kUnimplemented, "key rank_pattern: the regular expression");
}

TEST_F(AdapterTest, ReadsMemoryLayersAndGains) {
  std::vector<NamedTensor> tensors = KeyLora();
  tensors.push_back({"fot.layers.1.memory_key_gain", {1}, {1.5f}});
  const auto adapter = Load(kConfigJson, tensors,
                            R"({"mem_layers": [1], "mem_positionals": false, "window": 512,
                                "top_k": 4, "memory_key_gain": true, "chat_template": "chatml",
                                "system_prompt": "Be brief."})");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const MemoryConfig& memory = (*adapter)->memory_config();
  EXPECT_THAT(memory.mem_layers, ElementsAre(1));
  EXPECT_FALSE(memory.mem_positionals);
  EXPECT_EQ(memory.window, 512);
  EXPECT_EQ(memory.top_k, 4);
  EXPECT_EQ(memory.encoding, "window-local");
  EXPECT_EQ(memory.chat_template, "chatml");
  EXPECT_TRUE(memory.has_system_prompt);
  EXPECT_EQ(memory.system_prompt, "Be brief.");
  EXPECT_TRUE(memory.trained);
  EXPECT_THAT((*adapter)->MemoryKeyGain(1), ElementsAre(1.5f));
  EXPECT_TRUE((*adapter)->MemoryKeyGain(0).empty());
}

TEST_F(AdapterTest, GainsMustBeThoseThatAreAnnounced) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  std::vector<NamedTensor> tensors = KeyLora();
  ExpectRefused(Load(kConfigJson, tensors, R"({"mem_layers": [1], "memory_key_gain": true})"),
                kInvalid, "tensor fot.layers.1.memory_key_gain is missing");
  tensors.push_back({"fot.layers.1.memory_key_gain", {1}, {1.5f}});
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "fot_config.json names no such memory layer");
  ExpectRefused(Load(kConfigJson, tensors, R"({"mem_layers": [0], "memory_key_gain": true})"),
                kInvalid, "fot_config.json names no such memory layer");
  ExpectRefused(Load(kConfigJson, tensors, R"({"mem_layers": [1]})"), kInvalid,
                "memory_key_gain: false");
  tensors.back().shape = {2};
  tensors.back().values = {1, 2};
  ExpectRefused(Load(kConfigJson, tensors, R"({"mem_layers": [1], "memory_key_gain": true})"),
                kInvalid, "fot.layers.1.memory_key_gain: shape [2], want [1]");
}

TEST_F(AdapterTest, BadMemoryConfigurationsAreNamed) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto load = [&](std::string_view fot) { return Load(kConfigJson, KeyLora(), fot); };
  ExpectRefused(load("{"), kInvalid, "fot_config.json: no valid JSON");
  ExpectRefused(load("{}"), kInvalid, "key mem_layers: want a list");
  ExpectRefused(load(R"({"mem_layers": []})"), kInvalid, "key mem_layers: want a list");
  ExpectRefused(load(R"({"mem_layers": [2]})"), kInvalid, "mem_layers: 2, want layers from 0 to 1");
  ExpectRefused(load(R"({"mem_layers": ["1"]})"), kInvalid, "mem_layers: -1");
  ExpectRefused(load(R"({"mem_layers": [1, 0]})"), kInvalid, "ascending order");
  ExpectRefused(load(R"({"mem_layers": [1], "window": 4096})"), kInvalid, "key window: 4096");
  ExpectRefused(load(R"({"mem_layers": [1], "top_k": 0})"), kInvalid, "key top_k: 0");
  ExpectRefused(load(R"({"mem_layers": [1], "reread_by": "luck"})"), kInvalid,
                "key reread_by: 'luck', want bm25 or both");
  ExpectRefused(load(R"({"mem_layers": [1], "encoding": "other"})"),
                absl::StatusCode::kUnimplemented, "key encoding: 'other'");
  ExpectRefused(load(R"({"mem_layers": [1], "windows": 12})"), absl::StatusCode::kUnimplemented,
                "key windows is unknown");
}

TEST_F(AdapterTest, FeaturesOfPeftThatItLacksAreNamed) {
  const auto kNo = absl::StatusCode::kUnimplemented;
  const auto load = [&](std::string_view more) {
    return Load(R"({"peft_type": "LORA", "r": 2, )" + std::string(more) + "}");
  };
  ExpectRefused(Load(R"({"peft_type": "IA3"})"), kNo, "key peft_type: 'IA3'");
  ExpectRefused(load(R"("bias": "all")"), kNo, "key bias: 'all'");
  ExpectRefused(load(R"("fan_in_fan_out": true)"), kNo, "key fan_in_fan_out");
  ExpectRefused(load(R"("use_dora": true)"), kNo, "key use_dora");
  ExpectRefused(load(R"("lora_bias": true)"), kNo, "key lora_bias");
  ExpectRefused(load(R"("modules_to_save": ["embed_tokens"])"), kNo,
                "key modules_to_save: embed_tokens");
  ExpectRefused(load(R"("init_lora_weights": "pissa_niter_4")"), kNo, "'pissa_niter_4'");
  ExpectRefused(load(R"("init_lora_weights": "lora_ga")"), kNo, "key init_lora_weights: 'lora_ga'");
  ExpectRefused(load(R"("alora_invocation_tokens": [1, 2])"), kNo, "key alora_invocation_tokens");
  ExpectRefused(load(R"("layer_replication": [[0, 1]])"), kNo, "key layer_replication");
  ExpectRefused(load(R"("use_qalora": true)"), kNo, "key use_qalora");
  EXPECT_TRUE(load(R"("init_lora_weights": "gaussian", "alora_invocation_tokens": null)").ok());
  EXPECT_TRUE(load(R"("use_qalora": false, "layer_replication": [])").ok());
  EXPECT_TRUE(load(R"("modules_to_save": null, "bias": "none", "init_lora_weights": true)").ok());
}

TEST_F(AdapterTest, EveryTensorMustHaveAPlace) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  std::vector<NamedTensor> tensors = KeyLora();
  tensors[0].name = std::string(kPrefix) + "7.self_attn.k_proj.lora_A.weight";
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "no linear layer model.layers.7");
  tensors = KeyLora();
  tensors.pop_back();
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "k_proj.lora_B.weight is missing");
  tensors = KeyLora();
  tensors.erase(tensors.begin());
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "k_proj.lora_B.weight has no lora_A");
  tensors = KeyLora();
  tensors.push_back(
      {"base_model.model.model.embed_tokens.lora_embedding_A", {2, 16}, std::vector<float>(32)});
  ExpectRefused(Load(kConfigJson, tensors), absl::StatusCode::kUnimplemented, "lora_embedding_A");
  ExpectRefused(Load(kConfigJson, {}), kInvalid, "the adapter is empty");
}

TEST_F(AdapterTest, WrongShapesNameBoth) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  std::vector<NamedTensor> tensors = KeyLora();
  tensors[0].shape = {2, 7};
  tensors[0].values.resize(14);
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "lora_A.weight: shape [2,7], want [2,8]");
  tensors = KeyLora();
  tensors[1].shape = {2, 4};
  ExpectRefused(Load(kConfigJson, tensors), kInvalid, "lora_B.weight: shape [2,4], want [4,2]");
  ExpectRefused(Load(R"({"peft_type": "LORA", "r": 4})"), kInvalid, "shape [2,8], want [4,8]");
  ExpectRefused(Load(R"({"peft_type": "LORA", "r": 0})"), kInvalid, "key r: 0");
  ExpectRefused(Load(R"({"peft_type": "LORA", "r": 1e15})"), kInvalid, "rank 1e+15");
}

TEST_F(AdapterTest, RefusesValuesThatAreNotFinite) {
  std::vector<NamedTensor> tensors = KeyLora();
  tensors[1].values[3] = std::nanf("");
  ExpectRefused(Load(kConfigJson, tensors), absl::StatusCode::kInvalidArgument, "not finite");
}

TEST_F(AdapterTest, FilesMustBeThere) {
  folder_.Write("adapter_model.safetensors", SafetensorsOf(KeyLora()));
  ExpectRefused(Adapter::Load(folder_.path(), Config()), absl::StatusCode::kNotFound,
                "adapter_config.json");
  folder_.Write("adapter_config.json", kConfigJson);
  std::filesystem::remove(folder_ / "adapter_model.safetensors");
  ExpectRefused(Adapter::Load(folder_.path(), Config()), absl::StatusCode::kNotFound,
                "adapter_model.safetensors");
}

TEST_F(AdapterTest, ARunsFolderNamesItsAdapter) {
  std::filesystem::create_directories(folder_ / "adapter");
  folder_.Write("adapter/adapter_config.json", kConfigJson);
  ExpectRefused(Adapter::Load(folder_.path(), Config()), absl::StatusCode::kNotFound,
                "whose adapter is");
}

TEST_F(AdapterTest, FingerprintTellsContentsApart) {
  const auto fingerprint = [&](std::string_view config, float b, std::string_view fot) {
    std::vector<NamedTensor> tensors = KeyLora();
    tensors[1].values[0] = b;
    const auto adapter = Load(config, tensors, fot);
    EXPECT_TRUE(adapter.ok()) << adapter.status();
    return (*adapter)->Fingerprint();
  };
  const std::string fot = R"({"mem_layers": [0]})";
  const Hash128 base = fingerprint(kConfigJson, 1, fot);
  EXPECT_EQ(fingerprint(kConfigJson, 1, fot), base);
  EXPECT_NE(fingerprint(kConfigJson, 2, fot), base);
  EXPECT_NE(fingerprint(kConfigJson, 1, R"({"mem_layers": [1]})"), base);
  EXPECT_NE(fingerprint(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 7})", 1, fot), base);
  EXPECT_EQ(fingerprint(kConfigJson, 1, R"({"mem_layers": [0], "top_k": 99})"), base)
      << "how a memory is asked changes none of its keys";
}

}  // namespace
}  // namespace fovea::model
