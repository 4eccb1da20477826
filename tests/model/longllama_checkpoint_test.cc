// LongLLaMA's folders as they are published (config.json, pytorch_model.bin, tokenizer.model), and
// what is said about wrong ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "model/transformer.h"
#include "nlohmann/json.hpp"
#include "tests/model/weights/torch_writer.h"

namespace fovea::model {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kPieces = 1400;  // of the SentencePiece model in the test data

json PublishedConfig() {
  return {{"architectures", {"LongLlamaForCausalLM"}},
          {"auto_map", {{"AutoConfig", "configuration_longllama.LongLlamaConfig"}}},
          {"model_type", "longllama"},
          {"vocab_size", kPieces},
          {"hidden_size", 8},
          {"intermediate_size", 12},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"hidden_act", "silu"},
          {"max_position_embeddings", 64},
          {"last_context_length", 32},
          {"mem_layers", {1}},
          {"mem_positionals", true},
          {"mem_dtype", "bfloat16"},
          {"mem_attention_grouping", {4, 2048}},
          {"gradient_checkpoint_every_ith", 1},
          {"torch_attention", false},
          {"torch_dtype", "float32"},
          {"rms_norm_eps", 1e-6},
          {"rope_scaling", nullptr},
          {"use_cache", true},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"pad_token_id", 0},
          {"tie_word_embeddings", false}};
}

std::vector<NamedTensor> Tensors() {
  std::vector<NamedTensor> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    NamedTensor tensor{std::move(name), std::move(shape), {}};
    int64_t n = 1;
    for (const int64_t size : tensor.shape) n *= size;
    for (int64_t i = 0; i < n; ++i) {
      tensor.values.push_back(
          0.01f * static_cast<float>((i * 37 + static_cast<int64_t>(tensors.size())) % 101 - 50));
    }
    tensors.push_back(std::move(tensor));
  };
  add("model.embed_tokens.weight", {kPieces, 8});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const std::string name : {"q", "k", "v", "o"}) {
      add(layer + "self_attn." + name + "_proj.weight", {8, 8});
    }
    add(layer + "self_attn.rotary_emb.inv_freq", {2});  // the published files have it
    add(layer + "mlp.gate_proj.weight", {12, 8});
    add(layer + "mlp.up_proj.weight", {12, 8});
    add(layer + "mlp.down_proj.weight", {8, 12});
    add(layer + "input_layernorm.weight", {8});
    add(layer + "post_attention_layernorm.weight", {8});
  }
  add("model.norm.weight", {8});
  add("lm_head.weight", {kPieces, 8});
  return tensors;
}

class LongLlamaCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = compute::Device::Create("cpu", 1);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    std::ifstream pieces(FOVEA_SOURCE_DIR "/tests/model/tokenizer/data/sentencepiece_llama.model",
                         std::ios::binary);
    folder_.Write("tokenizer.model", std::string(std::istreambuf_iterator<char>(pieces), {}));
    folder_.Write("config.json", PublishedConfig().dump());
    folder_.Write("pytorch_model.bin", TorchFileOf(Tensors()));
  }

  absl::StatusOr<std::unique_ptr<Transformer>> Load() {
    LoadOptions options;
    options.model = folder_.path();
    return Transformer::Load(device_.get(), options);
  }
  void ExpectRefused(const json& changes, const std::string& message) {
    json config = PublishedConfig();
    config.update(changes);
    folder_.Write("config.json", config.dump());
    ExpectRefused(message);
  }
  void ExpectRefused(const std::string& message) {
    const auto model = Load();
    ASSERT_FALSE(model.ok()) << message;
    EXPECT_THAT(model.status().ToString(), HasSubstr(message));
    EXPECT_THAT(model.status().ToString(), HasSubstr(folder_.path().native()));
  }

  TempFolder folder_;
  std::unique_ptr<compute::Device> device_;
};

TEST_F(LongLlamaCheckpointTest, LoadsAsItIsPublished) {
  const auto model = Load();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->memory_config().encoding, "reference");
  EXPECT_THAT((*model)->memory_config().mem_layers, testing::ElementsAre(1));
  EXPECT_EQ((*model)->tokenizer().vocab_size(), kPieces);
  EXPECT_TRUE((*model)->tokenizer().spec().add_bos);
  EXPECT_EQ((*model)->tokenizer().spec().bos_id, 1);
  EXPECT_TRUE((*model)->tokenizer().IsEnd(2));
}

TEST_F(LongLlamaCheckpointTest, IsTheSameModelInEveryFormat) {
  const auto whole = Load();
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto expect_same = [&] {
    const auto model = Load();
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->fingerprint(), (*whole)->fingerprint());
  };
  std::filesystem::remove(folder_ / "pytorch_model.bin");
  const std::vector<NamedTensor> tensors = Tensors();
  folder_.Write("one.bin", TorchFileOf({tensors.begin(), tensors.begin() + 9}));
  folder_.Write("two.bin", TorchFileOf({tensors.begin() + 9, tensors.end()}));
  json index = {{"metadata", json::object()}, {"weight_map", json::object()}};
  for (size_t i = 0; i < tensors.size(); ++i) {
    index["weight_map"][tensors[i].name] = i < 9 ? "one.bin" : "two.bin";
  }
  folder_.Write("pytorch_model.bin.index.json", index.dump());
  expect_same();

  // Shards are checked as those of safetensors are.
  index["weight_map"][tensors[9].name] = "one.bin";
  folder_.Write("pytorch_model.bin.index.json", index.dump());
  ExpectRefused("is here, but in one.bin");
  index["weight_map"][tensors[9].name] = "/etc/two.bin";
  folder_.Write("pytorch_model.bin.index.json", index.dump());
  ExpectRefused("want the name of a .bin file in the same folder");
  std::filesystem::remove(folder_ / "pytorch_model.bin.index.json");

  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  expect_same();
}

TEST_F(LongLlamaCheckpointTest, AConfigurationThatContradictsTheTensorsIsNamed) {
  ExpectRefused({{"vocab_size", kPieces + 16}},
                "model.embed_tokens.weight: shape [1400,8], want [1416,8]");
  ExpectRefused({{"hidden_size", 16}}, "model.embed_tokens.weight: shape [1400,8], want [1400,16]");
  ExpectRefused({{"intermediate_size", 11}}, "mlp.gate_proj.weight: shape [12,8], want [11,8]");
  ExpectRefused({{"num_hidden_layers", 3}}, "3 layers of at least 9 tensors");
  ExpectRefused({{"num_hidden_layers", 1}, {"mem_layers", {0}}}, "tensor model.layers.1.");
  ExpectRefused({{"num_attention_heads", 3}}, "key hidden_size: 8 is no multiple");
  ExpectRefused({{"num_key_value_heads", 1}}, "k_proj.weight: shape [8,8], want [4,8]");
  ExpectRefused({{"mem_layers", {2}}}, "key mem_layers: 2");
  ExpectRefused({{"mem_dtype", "float64"}}, "key mem_dtype: 'float64'");
  ExpectRefused({{"last_context_length", 0}}, "key last_context_length: 0");
  ExpectRefused({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}, "key rope_scaling");
}

TEST_F(LongLlamaCheckpointTest, AVocabularyThatDoesNotMatchIsRefused) {
  std::vector<NamedTensor> tensors = Tensors();
  for (NamedTensor& tensor : tensors) {
    if (tensor.shape[0] != kPieces) continue;
    tensor.shape[0] = kPieces - 1;
    tensor.values.resize(static_cast<size_t>((kPieces - 1) * 8));
  }
  folder_.Write("pytorch_model.bin", TorchFileOf(tensors));
  ExpectRefused({{"vocab_size", kPieces - 1}},
                "the tokenizer has 1400 tokens, the embedding table only 1399 rows");
  ExpectRefused({{"vocab_size", kPieces - 1}, {"bos_token_id", kPieces}}, "key bos_token_id");
  folder_.Write("tokenizer.model", "no protocol buffer");
  folder_.Write("config.json", PublishedConfig().dump());
  folder_.Write("pytorch_model.bin", TorchFileOf(Tensors()));
  EXPECT_THAT(Load().status().ToString(), HasSubstr("tokenizer.model"));
}

TEST_F(LongLlamaCheckpointTest, HostileWeightsAreRefusedAndNothingIsExecuted) {
  const std::string marker = (folder_ / "executed").string();
  const std::string pickle =
      "\x80\x02" + PickledGlobal("os", "system") + "(" + PickledText("touch " + marker) + "tR.";
  folder_.Write("pytorch_model.bin", MakeZip({{"m/data.pkl", pickle}}));
  ExpectRefused("it would call os.system");
  EXPECT_FALSE(std::filesystem::exists(marker));
  const std::string right = TorchFileOf(Tensors());
  folder_.Write("pytorch_model.bin", std::string_view(right).substr(0, right.size() / 2));
  ExpectRefused("truncated or damaged");
  folder_.Write("pytorch_model.bin",
                std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15));
  ExpectRefused("the format of PyTorch before 1.6");
}

}  // namespace
}  // namespace fovea::model
