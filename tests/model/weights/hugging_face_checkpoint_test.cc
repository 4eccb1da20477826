#include "model/weights/hugging_face_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// kTinyConfigJson with more keys; later ones win in no JSON, so give only new ones.
std::string ConfigWith(std::string_view more) {
  std::string json = kTinyConfigJson;
  json.pop_back();
  return json + (more.empty() ? "" : ", ") + std::string(more) + "}";
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) std::abort();
  return text.replace(at, from.size(), to);
}

class HuggingFaceCheckpointTest : public testing::Test {
 protected:
  // The tiny model with this config.json.
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(std::string_view config = kTinyConfigJson) {
    folder_.Write("config.json", config);
    folder_.Write("model.safetensors", SafetensorsOf(TinyTensors()));
    return Checkpoint::Open(folder_.path());
  }
  void ExpectConfigRefused(std::string_view config, absl::StatusCode code,
                           const std::string& message) {
    const auto checkpoint = Open(config);
    ASSERT_FALSE(checkpoint.ok()) << config;
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr(message));
  }
  void ExpectFolderRefused(absl::StatusCode code, const std::string& message) {
    const auto checkpoint = Checkpoint::Open(folder_.path());
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr(message));
  }
  TempFolder folder_;
};

TEST_F(HuggingFaceCheckpointTest, ReadsFolderAndFileAlike) {
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 6);
  EXPECT_EQ(config.hidden_size, 8);
  EXPECT_EQ(config.intermediate_size, 12);
  EXPECT_EQ(config.n_layers, 1);
  EXPECT_EQ(config.n_heads, 2);
  EXPECT_EQ(config.n_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_EQ(config.rope_theta, 10000.0f);
  EXPECT_EQ(config.name, folder_.path().filename());
  EXPECT_EQ((*checkpoint)->tensors().size(), 12u);
  auto q = (*checkpoint)->Find("model.layers.0.self_attn.q_proj.weight", {8, 8});
  ASSERT_TRUE(q.ok()) << q.status();
  EXPECT_EQ(std::memcmp((*q)->data, FloatBytes(Ramp(1000, 64)).data(), 256), 0);

  const auto file = Checkpoint::Open(folder_ / "model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Fingerprint(), (*checkpoint)->Fingerprint());
}

TEST_F(HuggingFaceCheckpointTest, FamiliesHaveTheirDefaults) {
  // What config.json leaves out; seen in the message about the tensor that then does not fit.
  const auto llama = Open(Replaced(kTinyConfigJson, "\"num_key_value_heads\": 1,", ""));
  EXPECT_THAT(llama.status().ToString(),
              HasSubstr("self_attn.k_proj.weight: shape [4,8], want [8,8]"));
  const std::string mistral = Replaced(kTinyConfigJson, "\"llama\"", "\"mistral\"");
  const auto window = Open(Replaced(mistral, "\"max_position_embeddings\": 64,", ""));
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_EQ((*window)->config().max_position_embeddings, 4096);
  const auto no_window =
      Open(Replaced(mistral, "\"max_position_embeddings\": 64", "\"sliding_window\": null"));
  ASSERT_TRUE(no_window.ok()) << no_window.status();
  EXPECT_EQ((*no_window)->config().max_position_embeddings, 131072);
  EXPECT_THAT(Open(Replaced(kTinyConfigJson, "\"llama\"", "\"qwen2\"")).status().ToString(),
              HasSubstr("self_attn.q_proj.bias is missing, want shape [8]"));
}

// Heads of a size of their own, norms of queries and keys, no biases.
TEST_F(HuggingFaceCheckpointTest, ReadsQwen3) {
  const std::string config = Replaced(kTinyConfigJson, "\"llama\"", "\"qwen3\"");
  std::string with_head_dim = config;
  with_head_dim.pop_back();
  with_head_dim += R"(, "head_dim": 4, "attention_bias": false, "use_sliding_window": false,
                      "sliding_window": 32, "max_window_layers": 1})";
  EXPECT_THAT(
      Open(with_head_dim).status().ToString(),
      HasSubstr("tensor model.layers.0.self_attn.q_norm.weight is missing, want shape [4]"));
  std::vector<NamedTensor> tensors = TinyTensors();
  for (NamedTensor& tensor : TinyQkNorms()) tensors.push_back(std::move(tensor));
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config().architecture, "qwen3");
  EXPECT_TRUE((*checkpoint)->config().qk_norm);
  EXPECT_FALSE((*checkpoint)->config().attention_bias);
  EXPECT_EQ((*checkpoint)->config().max_position_embeddings, 64);
  EXPECT_EQ((*checkpoint)->tensors().size(), 14u);
  // A norm's weights are part of what a memory was encoded by.
  const Hash128 fingerprint = (*checkpoint)->Fingerprint();
  for (const size_t norm : {tensors.size() - 2, tensors.size() - 1}) {
    std::vector<NamedTensor> others = tensors;
    others[norm].values[3] += 1;
    folder_.Write("model.safetensors", SafetensorsOf(others));
    const auto other = Checkpoint::Open(folder_.path());
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_NE((*other)->Fingerprint(), fingerprint);
  }
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  // As Qwen2: the window bounds the context.
  folder_.Write("config.json", Replaced(with_head_dim, "\"use_sliding_window\": false",
                                        "\"use_sliding_window\": true"));
  const auto window = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_EQ((*window)->config().max_position_embeddings, 32);
  // Biases are on the output, too, then.
  folder_.Write("config.json",
                Replaced(with_head_dim, "\"attention_bias\": false", "\"attention_bias\": true"));
  ExpectFolderRefused(absl::StatusCode::kUnimplemented, "key attention_bias: true");
  // The family's heads have 128 dimensions where nothing else is said.
  folder_.Write("config.json", config);
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "want [256,8]");
}

TEST_F(HuggingFaceCheckpointTest, ReadsTheMemoryOfAModelThatWasTrainedForIt) {
  folder_.Write("fot_config.json",
                R"({"mem_layers": [0], "mem_positionals": false, "window": 25})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const MemoryConfig& memory = (*checkpoint)->memory_config();
  EXPECT_THAT(memory.mem_layers, ElementsAre(0));
  EXPECT_FALSE(memory.mem_positionals);
  EXPECT_EQ(memory.window, 25);
  EXPECT_EQ(memory.encoding, "window-local");
  EXPECT_TRUE(memory.trained);
  folder_.Write("fot_config.json", R"({"mem_layers": [1]})");
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "fot_config.json: key mem_layers: 1");
  folder_.Write("fot_config.json", R"({"mem_layers": [0], "window": 25, "memory_key_gain": true})");
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "key memory_key_gain: true");
}

TEST_F(HuggingFaceCheckpointTest, ReadsScalingOfRopeInAllItsForms) {
  const char* const kForms[] = {
      R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32})",
      R"("rope_theta": 500000, "rope_scaling": {"type": "llama3", "factor": 8,
         "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 32})",
      R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32})"};
  for (const char* form : kForms) {
    const auto checkpoint = Open(ConfigWith(form));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const ModelConfig& config = (*checkpoint)->config();
    EXPECT_EQ(config.rope_theta, 500000.0f);
    EXPECT_EQ(config.rope_scaling.llama3_factor, 8.0f);
    EXPECT_EQ(config.rope_scaling.low_freq_factor, 1.0f);
    EXPECT_EQ(config.rope_scaling.high_freq_factor, 4.0f);
    EXPECT_EQ(config.rope_scaling.original_max_position_embeddings, 32);
    EXPECT_EQ(config.rope_scaling.linear_factor, 1.0f);
  }
  const auto linear = Open(ConfigWith(R"("rope_scaling": {"type": "linear", "factor": 2.5})"));
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ((*linear)->config().rope_scaling.linear_factor, 2.5f);
  EXPECT_EQ((*linear)->config().rope_scaling.llama3_factor, 1.0f);
  const auto none = Open(ConfigWith(R"("rope_scaling": null)"));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ((*none)->config().rope_scaling.linear_factor, 1.0f);
}

TEST_F(HuggingFaceCheckpointTest, ConfigurationsThatItCannotComputeAreNamed) {
  const auto kNo = absl::StatusCode::kUnimplemented;
  ExpectConfigRefused(R"({"model_type": "gemma"})", kNo, "key model_type: 'gemma'");
  ExpectConfigRefused(ConfigWith(R"("rope_scaling": {"type": "yarn", "factor": 4})"), kNo,
                      "key rope_scaling: 'yarn'");
  ExpectConfigRefused(ConfigWith(R"("hidden_act": "gelu")"), kNo, "key hidden_act: 'gelu'");
  ExpectConfigRefused(ConfigWith(R"("attention_bias": true)"), kNo, "key attention_bias");
  ExpectConfigRefused(ConfigWith(R"("mlp_bias": true)"), kNo, "key mlp_bias");
  ExpectConfigRefused(ConfigWith(R"("partial_rotary_factor": 0.5)"), kNo, "partial_rotary_factor");
  ExpectConfigRefused(ConfigWith(R"("quantization_config": {"bits": 4})"), kNo,
                      "key quantization_config");
}

TEST_F(HuggingFaceCheckpointTest, DamagedConfigurationsAreNamed) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectConfigRefused("{", kInvalid, "config.json: no valid JSON");
  ExpectConfigRefused("[]", kInvalid, "config.json: want a JSON object");
  ExpectConfigRefused(ConfigWith(R"("vocab_size": 6)"), kInvalid, "key vocab_size occurs twice");
  ExpectConfigRefused(ConfigWith(R"("head_dim": "4")"), kInvalid, "key head_dim: want a whole");
  ExpectConfigRefused(ConfigWith(R"("head_dim": 3)"), kInvalid, "head_dim: 3, want an even");
  ExpectConfigRefused(ConfigWith(R"("rope_theta": -1)"), kInvalid, "rope_theta: -1");
  ExpectConfigRefused(ConfigWith(R"("rope_scaling": {"type": "linear"})"), kInvalid,
                      "factor is missing");
  ExpectConfigRefused(ConfigWith(R"("eos_token_id": 6)"), kInvalid, "key eos_token_id");
  ExpectConfigRefused(
      Replaced(kTinyConfigJson, "\"num_attention_heads\": 2", "\"num_attention_heads\": 0"),
      kInvalid, "key num_attention_heads: 0");
  ExpectConfigRefused(
      Replaced(kTinyConfigJson, "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1e9"), kInvalid,
      "1000000000 layers");
  ExpectConfigRefused(
      Replaced(kTinyConfigJson, "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1e300"),
      kInvalid, "key num_hidden_layers: want a whole number");
}

TEST_F(HuggingFaceCheckpointTest, ReadsHeadDimOfItsOwn) {
  folder_.Write("config.json", ConfigWith(R"("head_dim": 6)"));
  std::vector<NamedTensor> tensors = TinyTensors();
  for (NamedTensor& tensor : tensors) {
    const std::string layer = "model.layers.0.self_attn.";
    if (tensor.name == layer + "q_proj.weight") tensor = RampTensor(tensor.name, {12, 8}, 0);
    if (tensor.name == layer + "k_proj.weight") tensor = RampTensor(tensor.name, {6, 8}, 0);
    if (tensor.name == layer + "v_proj.weight") tensor = RampTensor(tensor.name, {6, 8}, 0);
    if (tensor.name == layer + "o_proj.weight") tensor = RampTensor(tensor.name, {8, 12}, 0);
  }
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config().head_dim, 6);
}

TEST_F(HuggingFaceCheckpointTest, ReadsLongLlamasMemory) {
  std::string config = Replaced(kTinyConfigJson, "\"llama\"", "\"longllama\"");
  config.pop_back();
  config += R"(, "mem_layers": [0], "mem_positionals": false, "last_context_length": 32,
               "mem_dtype": "bfloat16", "mem_attention_grouping": null, "torch_attention": false})";
  const auto checkpoint = Open(config);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const MemoryConfig& memory = (*checkpoint)->memory_config();
  EXPECT_THAT(memory.mem_layers, ElementsAre(0));
  EXPECT_FALSE(memory.mem_positionals);
  EXPECT_EQ(memory.window, 64);
  EXPECT_EQ(memory.last_context_length, 32);
  EXPECT_EQ(memory.encoding, "reference");
  EXPECT_TRUE(memory.trained);

  EXPECT_THAT(Open(Replaced(config, "[0]", "[1]")).status().ToString(),
              HasSubstr("key mem_layers: 1, want layers from 0 to 0"));
  EXPECT_THAT(Open(Replaced(config, "[0]", "[0, 0]")).status().ToString(),
              HasSubstr("key mem_layers: want layers in ascending order"));
}

TEST_F(HuggingFaceCheckpointTest, TiedModelsNeedNoHeadAndIgnoreOne) {
  const auto with_head = Open(ConfigWith(R"("tie_word_embeddings": true)"));
  ASSERT_TRUE(with_head.ok()) << with_head.status();
  EXPECT_EQ((*with_head)->FindOrNull("lm_head.weight"), nullptr);
  std::vector<NamedTensor> tensors = TinyTensors();
  tensors.erase(tensors.begin());
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  const auto without = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(without.ok()) << without.status();
  folder_.Write("config.json", kTinyConfigJson);
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "tensor lm_head.weight is missing");
}

TEST_F(HuggingFaceCheckpointTest, TablesOfRopeAreIgnoredAndOtherTensorsNot) {
  folder_.Write("config.json", kTinyConfigJson);
  std::vector<NamedTensor> tensors = TinyTensors();
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}, {1, 2}});
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  tensors.push_back({"model.layers.0.self_attn.q_norm.weight", {4}, {1, 2, 3, 4}});
  folder_.Write("model.safetensors", SafetensorsOf(tensors));
  ExpectFolderRefused(absl::StatusCode::kUnimplemented, "self_attn.q_norm.weight");
}

TEST_F(HuggingFaceCheckpointTest, WrongShapesNameBoth) {
  folder_.Write("config.json", kTinyConfigJson);
  for (size_t i = 0; i < TinyTensors().size(); ++i) {
    std::vector<NamedTensor> tensors = TinyTensors();
    const int64_t wrong = tensors[i].shape[0] + 1;
    tensors[i].shape[0] = wrong;
    tensors[i].values.resize(tensors[i].values.size() * wrong / (wrong - 1));
    folder_.Write("model.safetensors", SafetensorsOf(tensors));
    ExpectFolderRefused(absl::StatusCode::kInvalidArgument,
                        tensors[i].name + ": shape [" + std::to_string(wrong));
  }
}

TEST_F(HuggingFaceCheckpointTest, ReadsShards) {
  const std::vector<NamedTensor> tensors = TinyTensors();
  const std::vector<NamedTensor> first(tensors.begin(), tensors.begin() + 5);
  const std::vector<NamedTensor> second(tensors.begin() + 5, tensors.end());
  const auto whole = Open();
  ASSERT_TRUE(whole.ok()) << whole.status();

  const TempFolder folder;
  const auto write_index = [&](size_t n_in_first, std::string_view second_name) {
    std::string index = R"({"metadata": {"total_size": 1}, "weight_map": {)";
    for (size_t i = 0; i < tensors.size(); ++i) {
      index += (i > 0 ? ", \"" : "\"") + tensors[i].name + "\": \"" +
               (i < n_in_first ? "model-1.safetensors" : std::string(second_name)) + "\"";
    }
    folder.Write("model.safetensors.index.json", index + "}}");
  };
  const auto refusal = [&] {
    const auto checkpoint = Checkpoint::Open(folder.path());
    return checkpoint.status().ToString();
  };
  folder.Write("config.json", kTinyConfigJson);
  folder.Write("model-1.safetensors", SafetensorsOf(first));
  write_index(5, "model-2.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("model-2.safetensors: cannot open"));
  folder.Write("model-2.safetensors", SafetensorsOf(second));
  const auto sharded = Checkpoint::Open(folder.path());
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ((*sharded)->Fingerprint(), (*whole)->Fingerprint());

  write_index(4, "model-2.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("is here, but in model-2.safetensors"));
  write_index(5, "../model-2.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("is in '../model-2.safetensors'"));
  write_index(5, "model.safetensors.index.json");
  EXPECT_THAT(refusal(), HasSubstr("is in 'model.safetensors.index.json'"));
  write_index(5, "model-1.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("is missing, model.safetensors.index.json names it"));
  folder.Write("model.safetensors.index.json", "{}");
  EXPECT_THAT(refusal(), HasSubstr("key weight_map"));
}

TEST_F(HuggingFaceCheckpointTest, FoldersWithoutAModelSaySo) {
  ExpectFolderRefused(absl::StatusCode::kNotFound, "config.json");
  folder_.Write("config.json", kTinyConfigJson);
  ExpectFolderRefused(absl::StatusCode::kNotFound, "want model.safetensors or pytorch_model.bin");
  folder_.Write("pytorch_model.bin", "PK");
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "no PyTorch file");
  std::filesystem::remove(folder_ / "pytorch_model.bin");
  folder_.Write("a.safetensors", "");
  folder_.Write("b.safetensors", "");
  ExpectFolderRefused(absl::StatusCode::kInvalidArgument, "name the one to read");
}

// --- Tokenizers ---

constexpr char kBytePreTokenizer[] =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";

std::string TokenizerJson(std::string_view pre_tokenizer, std::string_view more = "") {
  return R"({"version": "1.0", "added_tokens": [
               {"id": 3, "content": "<|im_start|>", "special": true},
               {"id": 5, "content": "<tool>", "special": false},
               {"id": 6, "content": "<pad>", "special": true}],
             "normalizer": null, "pre_tokenizer": )" +
         std::string(pre_tokenizer) +
         R"(, "model": {"type": "BPE", "dropout": null, "unk_token": null,
               "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
               "byte_fallback": false, "ignore_merges": true,
               "vocab": {"a": 0, "b": 1, "ab": 2, "<|im_start|>": 3},
               "merges": ["a b"]})" +
         std::string(more) + "}";
}

TEST_F(HuggingFaceCheckpointTest, ReadsAByteLevelTokenizer) {
  folder_.Write("tokenizer.json", TokenizerJson(kBytePreTokenizer));
  folder_.Write("tokenizer_config.json",
                R"({"bos_token": {"content": "<|im_start|>", "lstrip": false}, "eos_token": "ab",
                    "chat_template": "{{ messages }}"})");
  folder_.Write("generation_config.json", R"({"eos_token_id": [2, 3, 1]})");
  const auto checkpoint = Open(ConfigWith(R"("bos_token_id": 0, "eos_token_id": 4)"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kByteLevelBpe);
  EXPECT_EQ(spec.pre_tokenizer, "gpt2");
  // Id 4 is a hole, id 6 lies behind the embedding table.
  EXPECT_THAT(spec.tokens,
              ElementsAre("a", "b", "ab", "<|im_start|>", "[unused token 4]", "<tool>"));
  EXPECT_THAT(spec.types,
              ElementsAre(TokenType::kNormal, TokenType::kNormal, TokenType::kNormal,
                          TokenType::kControl, TokenType::kUnused, TokenType::kUserDefined));
  EXPECT_THAT(spec.merges, ElementsAre("a b"));
  EXPECT_TRUE(spec.ignore_merges);
  EXPECT_EQ(spec.bos_id, 3);
  EXPECT_EQ(spec.eos_id, 2);
  EXPECT_THAT(spec.extra_end_ids, ElementsAre(4, 3, 1));
  EXPECT_FALSE(spec.add_bos);
  EXPECT_FALSE(spec.add_space_prefix);
  EXPECT_EQ(spec.chat_template, "{{ messages }}");
}

TEST_F(HuggingFaceCheckpointTest, RecognisesPreTokenizers) {
  const std::string level =
      R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
  const auto split = [&](std::string_view regex) {
    return R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": ")" +
           std::string(regex) + R"("}, "behavior": "Isolated", "invert": false}, )" + level;
  };
  const std::pair<std::string, std::string> kCases[] = {
      {"gpt2", kBytePreTokenizer},
      {"smollm", std::string(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits",
                                 "individual_digits": true}, )") +
                     kBytePreTokenizer + "]}"},
      {"llama3", split(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|)"
                       R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)")},
      {"qwen2", split(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|)"
                      R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)")},
  };
  for (const auto& [name, pre_tokenizer] : kCases) {
    folder_.Write("tokenizer.json", TokenizerJson(pre_tokenizer));
    const auto checkpoint = Open();
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->tokenizer_spec().pre_tokenizer, name);
  }
  for (const std::string& unknown :
       {split("\\\\w+"), std::string(R"({"type": "Whitespace"})"), std::string("null"),
        Replaced(kBytePreTokenizer, "\"add_prefix_space\": false", "\"add_prefix_space\": true")}) {
    folder_.Write("tokenizer.json", TokenizerJson(unknown));
    const auto checkpoint = Open();
    ASSERT_FALSE(checkpoint.ok()) << unknown;
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kUnimplemented) << checkpoint.status();
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr("key pre_tokenizer"));
  }
}

TEST_F(HuggingFaceCheckpointTest, PostProcessorSaysWhatIsAdded) {
  const std::string post = R"(, "post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A"}}]}]})";
  folder_.Write("tokenizer.json", TokenizerJson(kBytePreTokenizer, post));
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tokenizer_spec().bos_id, 3);
  EXPECT_TRUE((*checkpoint)->tokenizer_spec().add_bos);
  EXPECT_FALSE((*checkpoint)->tokenizer_spec().add_eos);
  folder_.Write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  const auto overridden = Open();
  ASSERT_TRUE(overridden.ok()) << overridden.status();
  EXPECT_FALSE((*overridden)->tokenizer_spec().add_bos);
  EXPECT_TRUE((*overridden)->tokenizer_spec().add_eos);
}

TEST_F(HuggingFaceCheckpointTest, ReadsSentencePieceConvertedToBpe) {
  folder_.Write("tokenizer.json", R"({"added_tokens": [
      {"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "▁a": 5},
      "merges": [["▁", "a"]]}})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kSentencePiece);
  EXPECT_THAT(spec.tokens, ElementsAre("<unk>", "<s>", "<0x0A>", "▁", "a", "▁a"));
  EXPECT_THAT(spec.types, ElementsAre(TokenType::kUnknown, TokenType::kControl, TokenType::kByte,
                                      TokenType::kNormal, TokenType::kNormal, TokenType::kNormal));
  EXPECT_EQ(spec.scores.size(), 6u);
  EXPECT_TRUE(spec.add_space_prefix);
}

TEST_F(HuggingFaceCheckpointTest, EarlierMergesHaveBetterScores) {
  folder_.Write("tokenizer.json", R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁",
      "prepend_scheme": "never", "split": false},
    "model": {"type": "BPE", "byte_fallback": true,
      "vocab": {"a": 0, "b": 1, "c": 2, "bc": 3, "abc": 4, "ab": 5},
      "merges": ["b c", "a b", "a bc", "ab c"]}})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_GT(spec.scores[3], spec.scores[5]);
  EXPECT_GT(spec.scores[5], spec.scores[4]);
  EXPECT_FALSE(spec.add_space_prefix);
}

TEST_F(HuggingFaceCheckpointTest, KeepsASentencePieceModelAsItIs) {
  folder_.Write("tokenizer.model", "serialised");
  folder_.Write("chat_template.jinja", "[INST]");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kSentencePiece);
  EXPECT_EQ(spec.sentencepiece_model, "serialised");
  EXPECT_TRUE(spec.add_bos);
  EXPECT_EQ(spec.bos_id, 1);
  EXPECT_EQ(spec.eos_id, 2);
  EXPECT_EQ(spec.chat_template, "[INST]");
}

TEST_F(HuggingFaceCheckpointTest, TakesTheDefaultOfSeveralChatTemplates) {
  folder_.Write("tokenizer.json", TokenizerJson(kBytePreTokenizer));
  folder_.Write("tokenizer_config.json",
                R"({"chat_template": [{"name": "tools", "template": "T"},
                                      {"name": "default", "template": "D"}]})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tokenizer_spec().chat_template, "D");
}

TEST_F(HuggingFaceCheckpointTest, OneEndOfGenerationIsAsGoodAsAList) {
  folder_.Write("tokenizer.json", TokenizerJson(kBytePreTokenizer));
  folder_.Write("generation_config.json", R"({"eos_token_id": 1})");
  const auto checkpoint = Open(ConfigWith(R"("eos_token_id": [2, 0])"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tokenizer_spec().eos_id, 2);
  EXPECT_THAT((*checkpoint)->tokenizer_spec().extra_end_ids, ElementsAre(0, 1));
  folder_.Write("generation_config.json", R"({"eos_token_id": 6})");
  EXPECT_THAT(Open().status().ToString(), HasSubstr("generation_config.json: key eos_token_id"));
}

TEST_F(HuggingFaceCheckpointTest, DamagedTokenizersAreNamed) {
  const std::string good = TokenizerJson(kBytePreTokenizer);
  const std::pair<std::string, std::string> kCases[] = {
      {"{", "tokenizer.json: no valid JSON"},
      {"{}", "key model: want an object"},
      {Replaced(good, "\"ab\": 2", "\"ab\": 1"), "have the same id 1"},
      {Replaced(good, "\"ab\": 2", "\"ab\": 6"), "want an id below vocab_size 6"},
      {Replaced(good, "\"ab\": 2", "\"ab\": -1"), "want an id below vocab_size 6"},
      {Replaced(good, "\"ab\": 2", "\"ab\": 2, \"ab\": 4"), "key ab occurs twice"},
      {Replaced(good, "[\"a b\"]", "[3]"), "merges: element 0"},
      {Replaced(good, "\"id\": 3", "\"id\": -3"), "key added_tokens"},
      {Replaced(good, "\"BPE\"", "\"Unigram\""), "type 'Unigram'"},
      {Replaced(good, "\"a\": 0", "\"a\xff\": 0"), "no valid JSON"},
  };
  for (const auto& [json, message] : kCases) {
    folder_.Write("tokenizer.json", json);
    const auto checkpoint = Open();
    ASSERT_FALSE(checkpoint.ok()) << json;
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr(message));
  }
}

}  // namespace
}  // namespace fovea::model
