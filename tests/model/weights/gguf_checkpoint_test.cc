#include "model/weights/gguf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class GgufCheckpointTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const GgufWriter& writer) {
    return Checkpoint::Open(folder_.Write("tiny.gguf", writer.Finish()));
  }
  void ExpectRefused(const GgufWriter& writer, absl::StatusCode code, const std::string& message) {
    const auto checkpoint = Open(writer);
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr(message));
    EXPECT_THAT(checkpoint.status().ToString(), HasSubstr("tiny.gguf: "));
  }
  TempFolder folder_;
};

std::vector<float> Values(const Checkpoint& checkpoint, std::string_view name) {
  const Tensor* tensor = checkpoint.FindOrNull(name);
  if (tensor == nullptr) return {};
  std::vector<float> values(tensor->size_bytes / sizeof(float));
  std::memcpy(values.data(), tensor->data, tensor->size_bytes);
  return values;
}

TEST_F(GgufCheckpointTest, ReadsTheConfiguration) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  writer.F32("llama.rope.freq_base", 5000.0f);
  writer.String("general.name", "Tiny");
  AddTinyTensors(&writer);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "Tiny");
  EXPECT_EQ(config.vocab_size, 6);
  EXPECT_EQ(config.hidden_size, 8);
  EXPECT_EQ(config.intermediate_size, 12);
  EXPECT_EQ(config.n_layers, 1);
  EXPECT_EQ(config.n_heads, 2);
  EXPECT_EQ(config.n_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.rope_theta, 5000.0f);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ((*checkpoint)->tokenizer_spec().kind, TokenizerSpec::Kind::kNone);
  EXPECT_EQ((*checkpoint)->tensors().size(), 12u);
}

TEST_F(GgufCheckpointTest, UnshufflesQueriesAndKeysOfLlama) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::vector<float> q = Values(**checkpoint, "model.layers.0.self_attn.q_proj.weight");
  ASSERT_EQ(q.size(), 64u);
  // Rows of 8 that began at 1000: stored 0, 1, 2, 3 of a head are pairs (0, 1) and (2, 3) of
  // interleaved rope, so rotate-half's order takes 0, 2, 1, 3.
  std::vector<float> first_of_row;
  for (size_t row = 0; row < 8; ++row) first_of_row.push_back(q[row * 8]);
  EXPECT_THAT(first_of_row, ElementsAre(1000, 1016, 1008, 1024, 1032, 1048, 1040, 1056));
  EXPECT_EQ(q[9], 1017);
  const std::vector<float> v = Values(**checkpoint, "model.layers.0.self_attn.v_proj.weight");
  EXPECT_EQ(v, Ramp(1100, 32));
}

TEST_F(GgufCheckpointTest, LeavesQwen2InItsOrderAndTakesItsBiases) {
  GgufWriter writer;
  AddTinyMetadata("qwen2", &writer);
  AddTinyTensors(&writer);
  writer.Tensor("blk.0.attn_q.bias", {8}, 0, FloatBytes(Ramp(1, 8)));
  writer.Tensor("blk.0.attn_k.bias", {4}, 0, FloatBytes(Ramp(2, 4)));
  writer.Tensor("blk.0.attn_v.bias", {4}, 0, FloatBytes(Ramp(3, 4)));
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->config().attention_bias);
  EXPECT_EQ(Values(**checkpoint, "model.layers.0.self_attn.q_proj.weight"), Ramp(1000, 64));
  EXPECT_EQ(Values(**checkpoint, "model.layers.0.self_attn.k_proj.bias"), Ramp(2, 4));
}

TEST_F(GgufCheckpointTest, LeavesQwen3InItsOrderAndTakesItsQkNorms) {
  const auto write = [](const std::vector<NamedTensor>& norms) {
    GgufWriter writer;
    AddTinyMetadata("qwen3", &writer);
    AddTinyTensors(&writer);
    for (const NamedTensor& tensor : norms) {
      writer.Tensor(GgufName(tensor.name), tensor.shape, 0, FloatBytes(tensor.values));
    }
    return writer;
  };
  const auto checkpoint = Open(write(TinyQkNorms()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->config().qk_norm);
  EXPECT_FALSE((*checkpoint)->config().attention_bias);
  EXPECT_EQ(Values(**checkpoint, "model.layers.0.self_attn.q_proj.weight"), Ramp(1000, 64));
  EXPECT_EQ(Values(**checkpoint, "model.layers.0.self_attn.q_norm.weight"), Ramp(1400, 4));
  EXPECT_EQ(Values(**checkpoint, "model.layers.0.self_attn.k_norm.weight"), Ramp(1300, 4));

  ExpectRefused(write({TinyQkNorms()[0]}), absl::StatusCode::kInvalidArgument,
                "tensor blk.0.attn_q_norm.weight is missing, want shape [4]");
  ExpectRefused(write({TinyQkNorms()[0], RampTensor(TinyQkNorms()[1].name, {8}, 0)}),
                absl::StatusCode::kInvalidArgument,
                "blk.0.attn_q_norm.weight: shape [8], want [4]");
}

TEST_F(GgufCheckpointTest, BiasesOfLlamaAreUnshuffledToo) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.Tensor("blk.0.attn_q.bias", {8}, 0, FloatBytes(Ramp(0, 8)));
  writer.Tensor("blk.0.attn_k.bias", {4}, 0, FloatBytes(Ramp(0, 4)));
  writer.Tensor("blk.0.attn_v.bias", {4}, 0, FloatBytes(Ramp(0, 4)));
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Values(**checkpoint, "model.layers.0.self_attn.q_proj.bias"),
              ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(Values(**checkpoint, "model.layers.0.self_attn.v_proj.bias"),
              ElementsAre(0, 1, 2, 3));
}

TEST_F(GgufCheckpointTest, AbsentOutputMeansTiedEmbeddings) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  for (const NamedTensor& tensor : TinyTensors()) {
    if (tensor.name == "lm_head.weight") continue;
    writer.Tensor(GgufName(tensor.name), tensor.shape, 0, FloatBytes(tensor.values));
  }
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->config().tie_word_embeddings);
  EXPECT_EQ((*checkpoint)->FindOrNull("lm_head.weight"), nullptr);
}

TEST_F(GgufCheckpointTest, ReadsFactorsOfRope) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.Tensor("rope_freqs.weight", {2}, 0, FloatBytes({1, 32}));
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->config().rope_factors, ElementsAre(1, 32));
  EXPECT_EQ((*checkpoint)->FindOrNull("rope_freqs.weight"), nullptr);

  GgufWriter wrong;
  AddTinyMetadata("llama", &wrong);
  AddTinyTensors(&wrong);
  wrong.Tensor("rope_freqs.weight", {3}, 0, FloatBytes({1, 32, 32}));
  ExpectRefused(wrong, absl::StatusCode::kInvalidArgument,
                "rope_freqs.weight: shape [3], want [2]");
}

TEST_F(GgufCheckpointTest, ReadsLinearScalingOfRope) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.String("llama.rope.scaling.type", "linear");
  writer.F32("llama.rope.scaling.factor", 4.0f);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config().rope_scaling.linear_factor, 4.0f);

  GgufWriter yarn;
  AddTinyMetadata("llama", &yarn);
  AddTinyTensors(&yarn);
  yarn.String("llama.rope.scaling.type", "yarn");
  yarn.F32("llama.rope.scaling.factor", 4.0f);
  ExpectRefused(yarn, absl::StatusCode::kUnimplemented, "rope scaling 'yarn'");
}

TEST_F(GgufCheckpointTest, SlidingWindowBoundsTheContext) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.U32("llama.attention.sliding_window", 32);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config().max_position_embeddings, 32);
}

TEST_F(GgufCheckpointTest, WrongShapesNameBoth) {
  for (const NamedTensor& wrong : TinyTensors()) {
    // Its first dimension says how large the vocabulary is; then lm_head does not fit.
    if (wrong.name == "model.embed_tokens.weight") continue;
    GgufWriter writer;
    AddTinyMetadata("llama", &writer);
    for (const NamedTensor& tensor : TinyTensors()) {
      std::vector<int64_t> shape = tensor.shape;
      if (tensor.name == wrong.name) shape[0] -= 1;
      writer.Tensor(GgufName(tensor.name), shape, 0, FloatBytes(tensor.values));
    }
    std::string want = GgufName(wrong.name) + ": shape [" + std::to_string(wrong.shape[0] - 1);
    ExpectRefused(writer, absl::StatusCode::kInvalidArgument, want);
  }
}

TEST_F(GgufCheckpointTest, MissingTensorsAreNamed) {
  for (const NamedTensor& missing : TinyTensors()) {
    if (missing.name == "lm_head.weight") continue;
    GgufWriter writer;
    AddTinyMetadata("llama", &writer);
    for (const NamedTensor& tensor : TinyTensors()) {
      if (tensor.name == missing.name) continue;
      writer.Tensor(GgufName(tensor.name), tensor.shape, 0, FloatBytes(tensor.values));
    }
    ExpectRefused(writer, absl::StatusCode::kInvalidArgument,
                  "tensor " + GgufName(missing.name) + " is missing");
  }
}

TEST_F(GgufCheckpointTest, TensorsOfAnotherModelAreRefused) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.Tensor("blk.0.attn_q_norm.weight", {4}, 0, FloatBytes(Ramp(0, 4)));
  ExpectRefused(writer, absl::StatusCode::kUnimplemented, "blk.0.attn_q_norm.weight");
}

// Metadata with one value replaced.
GgufWriter With(std::string_view key, uint32_t value) {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  const std::pair<std::string, uint32_t> values[] = {
      {"block_count", 1},          {"context_length", 64},      {"embedding_length", 8},
      {"feed_forward_length", 12}, {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
  for (const auto& [name, normal] : values) {
    writer.U32("llama." + name, name == key ? value : normal);
  }
  writer.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  AddTinyTensors(&writer);
  return writer;
}

TEST_F(GgufCheckpointTest, AbsurdConfigurationsAreRefused) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(With("block_count", 0), kInvalid, "number of layers: 0");
  ExpectRefused(With("block_count", 0x7fffffff), kInvalid, "2147483647 layers");
  ExpectRefused(With("block_count", 0xffffffff), kInvalid, "number of layers: 4294967295");
  ExpectRefused(With("attention.head_count", 0), kInvalid, "attention.head_count: 0");
  ExpectRefused(With("attention.head_count_kv", 0), kInvalid, "key-value heads: 0");
  ExpectRefused(With("attention.head_count_kv", 3), kInvalid, "no multiple of 3");
  ExpectRefused(With("attention.head_count", 8), kInvalid, "head_dim: 1, want an even number");
  ExpectRefused(With("embedding_length", 0xffffffff), kInvalid, "hidden_size: 4294967295");
  ExpectRefused(With("context_length", 0), kInvalid, "context length: 0");
}

TEST_F(GgufCheckpointTest, SurvivesAnyFlippedByte) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  const std::string bytes = writer.Finish();
  size_t n_weight_bytes = 0;
  for (const NamedTensor& tensor : TinyTensors()) n_weight_bytes += tensor.values.size() * 4;
  for (size_t i = 0; i < bytes.size() - n_weight_bytes; ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ (i % 2 == 0 ? 0x01 : 0x80));
    const auto checkpoint = Checkpoint::Open(folder_.Write("tiny.gguf", damaged));
    if (!checkpoint.ok()) continue;
    // What it accepts is a whole model.
    EXPECT_EQ((*checkpoint)->config().n_layers, 1);
    EXPECT_GE((*checkpoint)->tensors().size(), 11u);
    (*checkpoint)->Fingerprint();
  }
}

TEST_F(GgufCheckpointTest, OtherArchitecturesAreNamed) {
  GgufWriter writer;
  AddTinyMetadata("gemma", &writer);
  AddTinyTensors(&writer);
  ExpectRefused(writer, absl::StatusCode::kUnimplemented, "architecture 'gemma'");
  GgufWriter experts;
  AddTinyMetadata("llama", &experts);
  experts.U32("llama.expert_count", 8);
  AddTinyTensors(&experts);
  ExpectRefused(experts, absl::StatusCode::kUnimplemented, "a mixture of 8 experts");
  GgufWriter split;
  AddTinyMetadata("llama", &split);
  split.U32("split.count", 3);
  AddTinyTensors(&split);
  ExpectRefused(split, absl::StatusCode::kUnimplemented, "one of 3 parts");
}

TEST_F(GgufCheckpointTest, MissingMetadataIsDamageAndNotAbsence) {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  AddTinyTensors(&writer);
  ExpectRefused(writer, absl::StatusCode::kInvalidArgument,
                "metadata llama.embedding_length is missing");
}

TEST_F(GgufCheckpointTest, ReadsAByteLevelTokenizer) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.String("tokenizer.ggml.model", "gpt2");
  writer.String("tokenizer.ggml.pre", "llama-bpe");
  writer.Strings("tokenizer.ggml.tokens", {"a", "b", "ab", "<|begin|>", "<|eot_id|>"});
  writer.Array<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, {1, 1, 1, 3, 3});
  writer.Strings("tokenizer.ggml.merges", {"a b"});
  writer.U32("tokenizer.ggml.bos_token_id", 3);
  writer.U32("tokenizer.ggml.eos_token_id", 0xffffffff);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kByteLevelBpe);
  EXPECT_EQ(spec.pre_tokenizer, "llama3");
  EXPECT_TRUE(spec.ignore_merges);
  EXPECT_TRUE(spec.add_bos);  // the default of this kind
  EXPECT_FALSE(spec.add_space_prefix);
  EXPECT_THAT(spec.merges, ElementsAre("a b"));
  EXPECT_EQ(spec.types[3], TokenType::kControl);
  EXPECT_EQ(spec.bos_id, 3);
  EXPECT_EQ(spec.eos_id, -1);
  EXPECT_THAT(spec.extra_end_ids, ElementsAre(4));
}

TEST_F(GgufCheckpointTest, ReadsASentencePieceTokenizer) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  writer.String("tokenizer.ggml.model", "llama");
  writer.Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x0A>", "\u2581a", "b"});
  writer.Array<float>("tokenizer.ggml.scores", GgufWriter::kF32, {0, 0, 0, 0, -1, -2});
  writer.Array<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, {2, 3, 3, 6, 1, 1});
  writer.U32("tokenizer.ggml.bos_token_id", 1);
  writer.U32("tokenizer.ggml.eos_token_id", 2);
  writer.Bool("tokenizer.ggml.add_space_prefix", false);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TokenizerSpec& spec = (*checkpoint)->tokenizer_spec();
  EXPECT_EQ(spec.kind, TokenizerSpec::Kind::kSentencePiece);
  EXPECT_THAT(spec.scores, ElementsAre(0, 0, 0, 0, -1, -2));
  EXPECT_EQ(spec.types[3], TokenType::kByte);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_FALSE(spec.add_space_prefix);
  EXPECT_THAT(spec.extra_end_ids, ElementsAre());
}

TEST_F(GgufCheckpointTest, DamagedTokenizersAreRefused) {
  const auto with = [](const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                       std::string_view pre, uint32_t eos) {
    GgufWriter writer;
    AddTinyMetadata("llama", &writer);
    AddTinyTensors(&writer);
    writer.String("tokenizer.ggml.model", "gpt2");
    writer.String("tokenizer.ggml.pre", pre);
    writer.Strings("tokenizer.ggml.tokens", tokens);
    writer.Array<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
    writer.Strings("tokenizer.ggml.merges", {});
    writer.U32("tokenizer.ggml.eos_token_id", eos);
    return writer;
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(with({"a", "b", "c", "d", "e", "f", "g"}, {1, 1, 1, 1, 1, 1, 1}, "gpt-2", 0),
                kInvalid, "7 tokens, the embedding table only 6 rows");
  ExpectRefused(with({"a", "b"}, {1}, "gpt-2", 0), kInvalid, "2 tokens and 1 token types");
  ExpectRefused(with({"a", "b"}, {1, 7}, "gpt-2", 0), kInvalid, "token_type[1]: 7");
  ExpectRefused(with({"a", "b"}, {1, 1}, "gpt-2", 6), kInvalid, "eos token: 6");
  ExpectRefused(with({"a", "\xff"}, {1, 1}, "gpt-2", 0), kInvalid, "tokens[1]");
  ExpectRefused(with({"a"}, {1}, "tekken", 0), absl::StatusCode::kUnimplemented, "'tekken'");
}

TEST_F(GgufCheckpointTest, FindNamesTheWantedShape) {
  GgufWriter writer;
  AddTinyMetadata("llama", &writer);
  AddTinyTensors(&writer);
  const auto checkpoint = Open(writer);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Find("lm_head.weight", {6, 8}).ok());
  EXPECT_THAT((*checkpoint)->Find("lm_head.weight", {8, 6}).status().ToString(),
              HasSubstr("lm_head.weight: shape [6,8], want [8,6]"));
  EXPECT_EQ((*checkpoint)->Find("lm_head.bias", {6}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GgufCheckpointTest, FingerprintTellsContentsApart) {
  const auto fingerprint = [&](float theta, float first_weight, std::string_view name) {
    GgufWriter writer;
    AddTinyMetadata("llama", &writer);
    writer.F32("llama.rope.freq_base", theta);
    writer.String("general.name", name);
    for (NamedTensor& tensor : TinyTensors()) {
      if (tensor.name == "lm_head.weight") tensor.values[0] = first_weight;
      writer.Tensor(GgufName(tensor.name), tensor.shape, 0, FloatBytes(tensor.values));
    }
    const auto checkpoint = Open(writer);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return (*checkpoint)->Fingerprint();
  };
  const Hash128 base = fingerprint(10000.0f, 1.0f, "a");
  EXPECT_EQ(fingerprint(10000.0f, 1.0f, "a"), base);
  EXPECT_EQ(fingerprint(10000.0f, 1.0f, "b"), base) << "a name changes no key or value";
  EXPECT_NE(fingerprint(10001.0f, 1.0f, "a"), base);
  EXPECT_NE(fingerprint(10000.0f, 1.5f, "a"), base);
}

TEST(CheckpointTest, SaysWhatAModelIsWhenGivenSomethingElse) {
  const TempFolder folder;
  EXPECT_EQ(Checkpoint::Open(folder / "absent.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Checkpoint::Open(folder.Write("notes.txt", "hello")).status().ToString(),
              HasSubstr("no model; give a .gguf file"));
  EXPECT_THAT(Checkpoint::Open(folder.Write("empty.gguf", "")).status().ToString(),
              HasSubstr("truncated"));
}

}  // namespace
}  // namespace fovea::model
