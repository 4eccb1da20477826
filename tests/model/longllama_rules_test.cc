// LongLLaMA's inference, a test a rule: against a plain computation in doubles to which each test
// says what the tokens see, or as two ways of calling that have to agree. (longllama_parity_test.cc
// compares with outputs of the public code.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "base/float16.h"
#include "compute/rope.h"
#include "model/reference_session.h"
#include "nlohmann/json.hpp"
#include "tests/model/weights/file_writers.h"

namespace fovea::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;
using Row = std::vector<double>;
using Rows = std::vector<Row>;
using Segment = ReferenceSession::Segment;

constexpr int64_t kVocab = 40;
constexpr int64_t kHidden = 32;
constexpr int64_t kInner = 48;
constexpr int64_t kHeads = 4;
constexpr int64_t kHeadDim = 8;
constexpr int64_t kWindow = 16;
constexpr int64_t kLastContext = 6;

// float32 against doubles, logits of size 1. What a broken rule changes is larger than 1e-2.
constexpr double kTolerance = 1e-4;

Ids Slice(const Ids& ids, size_t begin, size_t end) {
  return {&ids[begin], &ids[begin] + (end - begin)};
}

Ids RandomIds(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  Ids ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
  return ids;
}

json TinyConfig() {
  return {{"model_type", "longllama"},
          {"vocab_size", kVocab},
          {"hidden_size", kHidden},
          {"intermediate_size", kInner},
          {"num_hidden_layers", 3},
          {"num_attention_heads", kHeads},
          {"max_position_embeddings", kWindow},
          {"last_context_length", kLastContext},
          {"mem_layers", {0, 2}},
          {"mem_dtype", "float32"}};
}

std::vector<NamedTensor> RandomTensors(int64_t n_layers) {
  std::mt19937 random(11);
  std::vector<NamedTensor> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape, float mean, float deviation) {
    NamedTensor tensor{std::move(name), std::move(shape), {}};
    std::normal_distribution<float> normal(mean, deviation);
    int64_t n = 1;
    for (const int64_t size : tensor.shape) n *= size;
    for (int64_t i = 0; i < n; ++i) tensor.values.push_back(normal(random));
    tensors.push_back(std::move(tensor));
  };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns, float gain) {
    add(name, {rows, columns}, 0.0f, gain / std::sqrt(static_cast<float>(columns)));
  };
  add("model.embed_tokens.weight", {kVocab, kHidden}, 0.0f, 1.0f);
  for (int64_t l = 0; l < n_layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    add(layer + "input_layernorm.weight", {kHidden}, 1.0f, 0.2f);
    // Attention that tells keys apart.
    matrix(layer + "self_attn.q_proj.weight", kHidden, kHidden, 1.5f);
    matrix(layer + "self_attn.k_proj.weight", kHidden, kHidden, 1.5f);
    matrix(layer + "self_attn.v_proj.weight", kHidden, kHidden, 1.0f);
    matrix(layer + "self_attn.o_proj.weight", kHidden, kHidden, 1.0f);
    add(layer + "post_attention_layernorm.weight", {kHidden}, 1.0f, 0.2f);
    matrix(layer + "mlp.gate_proj.weight", kInner, kHidden, 1.0f);
    matrix(layer + "mlp.up_proj.weight", kInner, kHidden, 1.0f);
    matrix(layer + "mlp.down_proj.weight", kHidden, kInner, 1.0f);
  }
  add("model.norm.weight", {kHidden}, 1.0f, 0.2f);
  matrix("lm_head.weight", kVocab, kHidden, 1.0f);
  return tensors;
}

// A LLaMA in doubles without any notion of windows, overflow or memories that grow: one pass of
// some tokens that see what it is told.
class PlainModel {
 public:
  // Of some tokens, each layer's keys (before RoPE) and values: [n_layers][n_tokens].
  struct Entries {
    std::vector<Rows> keys, values;
    size_t size() const { return keys.empty() ? 0 : keys[0].size(); }
  };
  struct Pass {
    Rows logits;
    Entries entries;
  };

  PlainModel(const std::vector<NamedTensor>& tensors, const json& config)
      : n_layers_(config["num_hidden_layers"]),
        mem_layers_(config.value("mem_layers", std::vector<size_t>())),
        mem_positionals_(config.value("mem_positionals", true)),
        eps_(config.value("rms_norm_eps", 1e-6)) {
    for (const NamedTensor& tensor : tensors) tensors_.emplace(tensor.name, tensor);
  }

  // Tokens after `local`, whose first token has position `n_padding`; `memory` is seen by every
  // token in the memory layers.
  Pass Run(const Ids& ids, const Entries& local = {}, const Entries& memory = {},
           size_t n_padding = 0) const {
    Pass pass;
    pass.entries.keys.resize(n_layers_);
    pass.entries.values.resize(n_layers_);
    Rows x;
    for (const int32_t id : ids) x.push_back(Embedding(id));
    for (size_t l = 0; l < n_layers_; ++l) {
      const std::string layer = "model.layers." + std::to_string(l) + ".";
      const bool is_memory_layer =
          std::find(mem_layers_.begin(), mem_layers_.end(), l) != mem_layers_.end();
      const bool rotates = mem_positionals_ || !is_memory_layer;
      Rows keys = local.size() > 0 ? local.keys[l] : Rows();
      Rows values = local.size() > 0 ? local.values[l] : Rows();
      for (Row& row : x) {
        const Row normed = Norm(row, layer + "input_layernorm.weight");
        const Row query = Times(layer + "self_attn.q_proj.weight", normed);
        keys.push_back(Times(layer + "self_attn.k_proj.weight", normed));
        values.push_back(Times(layer + "self_attn.v_proj.weight", normed));
        pass.entries.keys[l].push_back(keys.back());
        pass.entries.values[l].push_back(values.back());
        const Row rotated = rotates ? Rotated(query, n_padding + keys.size() - 1) : query;
        Row attention(kHidden, 0.0);
        for (size_t head = 0; head < kHeads; ++head) {
          std::vector<double> scores;
          std::vector<const Row*> seen;
          for (size_t i = 0; i < keys.size(); ++i) {
            scores.push_back(
                Score(rotated, rotates ? Rotated(keys[i], n_padding + i) : keys[i], head));
            seen.push_back(&values[i]);
          }
          for (size_t i = 0; is_memory_layer && i < memory.size(); ++i) {
            scores.push_back(Score(rotated, memory.keys[l][i], head));
            seen.push_back(&memory.values[l][i]);
          }
          double sum = 0.0;
          for (double& score : scores) sum += score = std::exp(score);
          for (size_t i = 0; i < seen.size(); ++i) {
            for (size_t d = head * kHeadDim; d < (head + 1) * kHeadDim; ++d) {
              attention[d] += scores[i] / sum * (*seen[i])[d];
            }
          }
        }
        Add(Times(layer + "self_attn.o_proj.weight", attention), &row);
        const Row inner = Norm(row, layer + "post_attention_layernorm.weight");
        Row gate = Times(layer + "mlp.gate_proj.weight", inner);
        const Row up = Times(layer + "mlp.up_proj.weight", inner);
        for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
        Add(Times(layer + "mlp.down_proj.weight", gate), &row);
      }
    }
    for (const Row& row : x)
      pass.logits.push_back(Times("lm_head.weight", Norm(row, "model.norm.weight")));
    return pass;
  }

 private:
  Row Embedding(int32_t id) const {
    const std::vector<float>& table = tensors_.at("model.embed_tokens.weight").values;
    return {table.begin() + id * kHidden, table.begin() + (id + 1) * kHidden};
  }
  Row Times(const std::string& name, const Row& x) const {
    const NamedTensor& matrix = tensors_.at(name);
    Row out(static_cast<size_t>(matrix.shape[0]), 0.0);
    for (size_t i = 0; i < out.size(); ++i) {
      for (size_t j = 0; j < x.size(); ++j) out[i] += matrix.values[i * x.size() + j] * x[j];
    }
    return out;
  }
  Row Norm(const Row& x, const std::string& name) const {
    double squares = 0.0;
    for (const double value : x) squares += value * value;
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps_);
    Row out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * factor * tensors_.at(name).values[i];
    return out;
  }
  // Dimension i of a head paired with i + head_dim/2.
  static Row Rotated(Row x, size_t position) {
    for (size_t begin = 0; begin < x.size(); begin += kHeadDim) {
      for (size_t i = 0; i < kHeadDim / 2; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(10000.0, -2.0 * static_cast<double>(i) / kHeadDim);
        double& a = x[begin + i];
        double& b = x[begin + i + kHeadDim / 2];
        const double c = std::cos(angle), s = std::sin(angle);
        a = std::exchange(b, b * c + a * s) * -s + a * c;
      }
    }
    return x;
  }
  static double Score(const Row& query, const Row& key, size_t head) {
    double score = 0.0;
    for (size_t d = head * kHeadDim; d < (head + 1) * kHeadDim; ++d) score += query[d] * key[d];
    return score / std::sqrt(static_cast<double>(kHeadDim));
  }
  static void Add(const Row& x, Row* to) {
    for (size_t i = 0; i < x.size(); ++i) (*to)[i] += x[i];
  }

  size_t n_layers_;
  std::vector<size_t> mem_layers_;
  bool mem_positionals_;
  double eps_;
  std::map<std::string, NamedTensor> tensors_;
};

using Entries = PlainModel::Entries;

Entries operator+(Entries a, const Entries& b) {
  a.keys.resize(b.keys.size());
  a.values.resize(b.values.size());
  for (size_t l = 0; l < b.keys.size(); ++l) {
    a.keys[l].insert(a.keys[l].end(), b.keys[l].begin(), b.keys[l].end());
    a.values[l].insert(a.values[l].end(), b.values[l].begin(), b.values[l].end());
  }
  return a;
}

class LongLlamaRulesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = compute::Device::Create("cpu", 1);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    ids_ = RandomIds(60, 3);
    Load();
  }

  absl::StatusOr<std::unique_ptr<Transformer>> Open(const json& config) {
    folder_.Write("config.json", config.dump());
    folder_.Write("model.safetensors", SafetensorsOf(RandomTensors(config["num_hidden_layers"])));
    LoadOptions options;
    options.model = folder_.path();
    options.needs_tokenizer = false;
    return Transformer::Load(device_.get(), options);
  }
  // The tiny model with some keys of its configuration changed.
  void Load(const json& changes = json::object()) {
    json config = TinyConfig();
    config.update(changes);
    auto model = Open(config);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    plain_ = std::make_unique<PlainModel>(RandomTensors(config["num_hidden_layers"]), config);
  }

  // A session, from an empty state or one that has a memory alone.
  struct State {
    State(LongLlamaRulesTest* test, EntryType type = EntryType::kFloat32)
        : State(test, DenseMemory(test->device_.get(), type)) {}
    State(LongLlamaRulesTest* test, DenseMemory entries)
        : memory(std::move(entries)), session(test->model_.get(), &memory) {}

    // Logits of all positions.
    Rows Run(const Ids& ids, ReferenceSession::Call call = {}) {
      call.ids = ids;
      std::vector<float> logits;
      segments.clear();
      const absl::Status status = session.Run(call, &logits, /*all_logits=*/true, &segments);
      EXPECT_TRUE(status.ok()) << status;
      Rows rows;
      for (size_t i = 0; i + kVocab <= logits.size(); i += kVocab) {
        rows.emplace_back(&logits[i], &logits[i] + kVocab);
      }
      return rows;
    }
    std::vector<int64_t> Lengths() const {
      std::vector<int64_t> lengths;
      for (const Segment& segment : segments) lengths.push_back(segment.n_tokens);
      return lengths;
    }

    DenseMemory memory;
    ReferenceSession session;
    std::vector<Segment> segments;  // of the latest call
  };

  static double Difference(const Rows& a, const Rows& b) {
    EXPECT_EQ(a.size(), b.size());
    if (a.size() != b.size()) return INFINITY;
    double largest = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
      for (size_t j = 0; j < a[i].size(); ++j) {
        largest = std::max(largest, std::abs(a[i][j] - b[i][j]));
      }
    }
    return largest;
  }
  // Rows begin … end − 1; none where there are fewer.
  static Rows Part(const Rows& rows, size_t begin, size_t end) {
    EXPECT_LE(begin, end);
    EXPECT_LE(end, rows.size());
    if (begin > end || end > rows.size()) return {};
    return {rows.begin() + static_cast<int64_t>(begin), rows.begin() + static_cast<int64_t>(end)};
  }
  static void ExpectNear(const Rows& actual, const Rows& expected) {
    EXPECT_LT(Difference(actual, expected), kTolerance);
  }

  static Rows RowsOf(const std::vector<float>& values) {
    Rows rows;
    for (size_t i = 0; i < values.size(); i += kHidden)
      rows.emplace_back(&values[i], &values[i] + kHidden);
    return rows;
  }
  void ExpectMemory(const DenseMemory& memory, const Entries& expected) {
    ASSERT_EQ(memory.n_tokens(), static_cast<int64_t>(expected.size()));
    for (size_t m = 0; m < memory.entries().keys.size(); ++m) {
      const auto layer = static_cast<size_t>(model_->memory_config().mem_layers[m]);
      ExpectNear(RowsOf(memory.entries().keys[m]), expected.keys[layer]);
      ExpectNear(RowsOf(memory.entries().values[m]), expected.values[layer]);
    }
  }

  TempFolder folder_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<PlainModel> plain_;
  Ids ids_;
};

// What comes next depends on a local context, equally long in all layers, and on one memory per
// memory layer, and on nothing else.
TEST_F(LongLlamaRulesTest, Rule01_AStateIsALocalContextAndAMemoryPerMemoryLayer) {
  State state(this);
  state.Run(Slice(ids_, 0, 20));
  EXPECT_EQ(state.session.local_length(), 6);
  EXPECT_EQ(state.session.memory_length(), 14);
  ASSERT_EQ(state.memory.entries().keys.size(), 2u);
  for (size_t m = 0; m < 2; ++m) {
    EXPECT_EQ(state.memory.entries().keys[m].size(), 14u * kHidden);
    EXPECT_EQ(state.memory.entries().values[m].size(), 14u * kHidden);
  }
  const auto window = plain_->Run(Slice(ids_, 0, 14));
  const auto tail = plain_->Run(Slice(ids_, 14, 20), {}, window.entries);
  ExpectNear(state.Run({ids_[20]}), plain_->Run({ids_[20]}, tail.entries, window.entries).logits);
}

TEST_F(LongLlamaRulesTest, Rule02_APromptIsSplitIntoWindowsAndATail) {
  const std::map<size_t, std::vector<int64_t>> kSplits = {
      {1, {1}},      {6, {6}},      {7, {1, 6}},      {16, {10, 6}},
      {17, {11, 6}}, {22, {16, 6}}, {23, {16, 1, 6}}, {50, {16, 16, 12, 6}},
  };
  for (const auto& [n, lengths] : kSplits) {
    State state(this);
    state.Run(Slice(ids_, 0, n));
    EXPECT_EQ(state.Lengths(), lengths) << n;
  }
  // The model's own last_context_length, or the call's.
  State state(this);
  state.Run(Slice(ids_, 0, 16), {.last_context_length = 16});
  EXPECT_THAT(state.segments, ElementsAre(Segment{16, 0, 0}));
}

TEST_F(LongLlamaRulesTest, Rule03_WithoutALocalContextWindowsGoToTheMemory) {
  const auto first = plain_->Run(Slice(ids_, 0, 16));
  const auto second = plain_->Run(Slice(ids_, 16, 30), {}, first.entries);
  const Entries windows = first.entries + second.entries;
  const auto tail = plain_->Run(Slice(ids_, 30, 36), {}, windows);

  State prompt(this);
  const Rows logits = prompt.Run(Slice(ids_, 0, 36));
  ExpectNear(Part(logits, 0, 16), first.logits);
  ExpectNear(Part(logits, 16, 30), second.logits);
  ExpectNear(Part(logits, 30, logits.size()), tail.logits);
  EXPECT_THAT(prompt.segments,
              ElementsAre(Segment{16, 0, 0}, Segment{14, 0, 16}, Segment{6, 0, 30}));
  EXPECT_EQ(prompt.session.local_length(), 6);
  ExpectMemory(prompt.memory, windows);

  // Without cache the tail ends in the memory as well; and a memory alone is no local context.
  State document(this);
  ExpectNear(document.Run(Slice(ids_, 0, 36), {.use_cache = false}), logits);
  EXPECT_EQ(document.session.local_length(), 0);
  ExpectMemory(document.memory, windows + tail.entries);
  const auto next = plain_->Run(Slice(ids_, 36, 40), {}, windows + tail.entries);
  ExpectNear(document.Run(Slice(ids_, 36, 40), {.use_cache = false}), next.logits);
  EXPECT_EQ(document.session.memory_length(), 40);
}

TEST_F(LongLlamaRulesTest, Rule04_WithALocalContextEverySegmentGoesToIt) {
  State state(this);
  state.Run(Slice(ids_, 0, 4));
  const auto first = plain_->Run(Slice(ids_, 0, 4));
  const Rows logits = state.Run(Slice(ids_, 4, 16));
  // Split like any prompt, but no part of it goes to the memory.
  EXPECT_THAT(state.segments, ElementsAre(Segment{6, 4, 0}, Segment{6, 10, 0}));
  EXPECT_EQ(state.session.local_length(), 16);
  EXPECT_EQ(state.session.memory_length(), 0);
  ExpectNear(logits, plain_->Run(Slice(ids_, 4, 16), first.entries).logits);

  std::vector<float> no_logits;
  const absl::Status status =
      state.session.Run({.ids = {&ids_[16], 1}, .use_cache = false}, &no_logits);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
}

TEST_F(LongLlamaRulesTest, Rule05_OverflowMovesTheWholeLocalContext) {
  State state(this);
  state.Run(Slice(ids_, 0, 6));
  for (size_t i = 6; i < 16; ++i) state.Run({ids_[i]});
  // Exactly the window is no overflow.
  EXPECT_EQ(state.session.local_length(), 16);
  EXPECT_EQ(state.session.memory_length(), 0);
  state.Run({ids_[16]});
  EXPECT_EQ(state.session.local_length(), 1);
  EXPECT_EQ(state.session.memory_length(), 16);
  ExpectMemory(state.memory, plain_->Run(Slice(ids_, 0, 16)).entries);

  // A segment overflows as well: 13 + 6 > 16, and 3 more stay with those 6.
  State prompts(this);
  prompts.Run(Slice(ids_, 0, 6));
  for (size_t i = 6; i < 13; ++i) prompts.Run({ids_[i]});
  prompts.Run(Slice(ids_, 13, 19));
  prompts.Run(Slice(ids_, 19, 22));
  EXPECT_EQ(prompts.session.local_length(), 9);
  EXPECT_EQ(prompts.session.memory_length(), 13);
}

TEST_F(LongLlamaRulesTest, Rule06_TheOverflowingSegmentSeesTheMovedTokensInMemoryLayersOnly) {
  State state(this);
  state.Run(Slice(ids_, 0, 6));
  for (size_t i = 6; i < 14; ++i) state.Run({ids_[i]});
  const Entries moved = plain_->Run(Slice(ids_, 0, 14)).entries;
  // 14 + 4 > 16. The plain model keeps memory away from layer 1, which is no memory layer.
  ExpectNear(state.Run(Slice(ids_, 14, 18)), plain_->Run(Slice(ids_, 14, 18), {}, moved).logits);
}

TEST_F(LongLlamaRulesTest, Rule07_ATailLongerThanTheWindowStaysUntilTheNextStep) {
  State state(this);
  const Rows logits = state.Run(Slice(ids_, 0, 30), {.last_context_length = 24});
  EXPECT_THAT(state.segments, ElementsAre(Segment{6, 0, 0}, Segment{24, 0, 6}));
  EXPECT_EQ(state.session.local_length(), 24);
  const auto head = plain_->Run(Slice(ids_, 0, 6));
  const auto tail = plain_->Run(Slice(ids_, 6, 30), {}, head.entries);
  ExpectNear(Part(logits, 6, logits.size()), tail.logits);
  ExpectNear(state.Run({ids_[30]}),
             plain_->Run({ids_[30]}, {}, head.entries + tail.entries).logits);
  EXPECT_EQ(state.session.local_length(), 1);
  EXPECT_EQ(state.session.memory_length(), 30);

  // last_context_length = the window, and a full tail: the first token overflows.
  Load({{"last_context_length", kWindow}});
  State full(this);
  full.Run(Slice(ids_, 0, 20));
  EXPECT_EQ(full.session.local_length(), 16);
  full.Run({ids_[20]});
  EXPECT_EQ(full.session.local_length(), 1);
  EXPECT_EQ(full.session.memory_length(), 20);
}

// Positions count from the oldest token of the local context, whatever came before it. It shows
// against memory keys, which have no position.
TEST_F(LongLlamaRulesTest, Rule08_PositionsAreIndexesInTheLocalContext) {
  State state(this);  // [16][14][6]
  const Rows logits = state.Run(Slice(ids_, 0, 36));
  Entries memory = plain_->Run(Slice(ids_, 0, 16)).entries;
  memory = memory + plain_->Run(Slice(ids_, 16, 30), {}, memory).entries;
  const auto tail = plain_->Run(Slice(ids_, 30, 36), {}, memory);
  ExpectNear(Part(logits, 30, logits.size()), tail.logits);
  const auto elsewhere = plain_->Run(Slice(ids_, 30, 36), {}, memory, /*n_padding=*/30);
  EXPECT_GT(Difference(tail.logits, elsewhere.logits), 1e-2);

  // The steps go on from there, to the end of the window; after the overflow 0 is the first new
  // token.
  Entries local = tail.entries;
  for (size_t i = 36; i < 46; ++i) {
    const auto step = plain_->Run({ids_[i]}, local, memory);
    ExpectNear(state.Run({ids_[i]}), step.logits);
    local = local + step.entries;
  }
  ExpectNear(state.Run(Slice(ids_, 46, 49)),
             plain_->Run(Slice(ids_, 46, 49), {}, memory + local).logits);
  EXPECT_EQ(state.session.local_length(), 3);
}

// Keys of layer 0 depend on their token alone before RoPE: wherever a token stood, and whether a
// window or an overflow took it there, the memory holds the same key.
TEST_F(LongLlamaRulesTest, Rule09_MemoryKeysAreNotRotated) {
  const Ids same(17, 7);
  State window(this);
  window.Run(Slice(same, 0, 16), {.use_cache = false});
  State overflow(this);
  for (const int32_t id : same) overflow.Run({id});
  const Rows expected(16, plain_->Run({7}).entries.keys[0][0]);
  ExpectNear(RowsOf(window.memory.entries().keys[0]), expected);
  ExpectNear(RowsOf(overflow.memory.entries().keys[0]), expected);
}

TEST_F(LongLlamaRulesTest, Rule10_WithoutPositionalsMemoryLayersRotateNothing) {
  Load({{"mem_positionals", false}});
  State state(this);
  const Rows logits = state.Run(Slice(ids_, 0, 12));
  const auto window = plain_->Run(Slice(ids_, 0, 6));
  const auto tail = plain_->Run(Slice(ids_, 6, 12), {}, window.entries);
  ExpectNear(Part(logits, 6, logits.size()), tail.logits);

  // In a model of one layer, a memory layer, the order of what a token sees makes no difference
  // then, and it does with positions.
  Ids reversed = Slice(ids_, 0, 6);
  std::reverse(reversed.begin(), reversed.begin() + 5);
  for (const bool positionals : {false, true}) {
    Load({{"num_hidden_layers", 1}, {"mem_layers", {0}}, {"mem_positionals", positionals}});
    const Rows forwards = State(this).Run(Slice(ids_, 0, 6));
    const Rows backwards = State(this).Run(reversed);
    const double difference = Difference({forwards.back()}, {backwards.back()});
    if (positionals) {
      EXPECT_GT(difference, 1e-2);
    } else {
      EXPECT_LT(difference, kTolerance);
    }
  }
}

TEST_F(LongLlamaRulesTest, Rule11_OneSoftmaxOverTheLocalContextAndTheWholeMemory) {
  State state(this);
  state.Run(Slice(ids_, 0, 16), {.use_cache = false});
  const Entries head = plain_->Run(Slice(ids_, 0, 10)).entries;
  const Entries document = head + plain_->Run(Slice(ids_, 10, 16), {}, head).entries;
  State asked(this, state.memory);
  const Rows logits = asked.Run(Slice(ids_, 16, 22));
  ExpectNear(logits, plain_->Run(Slice(ids_, 16, 22), {}, document).logits);
  // The local part is causal: later tokens change nothing. The memory is not: the first token
  // would say something else without its last entry.
  State shorter(this, state.memory);
  ExpectNear({logits[0]}, shorter.Run({ids_[16]}));
  Entries without_last = document;
  for (Rows& rows : without_last.keys) rows.pop_back();
  EXPECT_GT(Difference({logits[0]}, plain_->Run({ids_[16]}, {}, without_last).logits), 1e-3);
}

TEST_F(LongLlamaRulesTest, Rule12_MemDtypeAppliesToTheMemoryAlone) {
  // Rounded to nearest even, once.
  DenseMemory rounded(device_.get(), EntryType::kBFloat16);
  MemoryEntries entries;
  entries.n_tokens = 1;
  entries.keys.assign(2, std::vector<float>(kHidden, 1.0f + 0x1p-8f));
  entries.values.assign(2, std::vector<float>(kHidden, 1.0f + 0x3p-8f));
  ASSERT_TRUE(rounded.Append(entries).ok());
  EXPECT_EQ(rounded.entries().keys[1][0], 1.0f);
  EXPECT_EQ(rounded.entries().values[1][0], 1.0f + 0x1p-6f);

  // While nothing is in the memory, its type makes no difference; then it is that of the entries.
  State floats(this);
  State halves(this, EntryType::kBFloat16);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(Difference(floats.Run({ids_[i]}), halves.Run({ids_[i]})), 0.0);
  }
  const Rows exact = floats.Run({ids_[16]});
  const Rows after_overflow = halves.Run({ids_[16]});
  Entries expected = plain_->Run(Slice(ids_, 0, 16)).entries;
  for (size_t m = 0; m < 2; ++m) {
    const auto layer = static_cast<size_t>(model_->memory_config().mem_layers[m]);
    for (const bool keys : {true, false}) {
      const auto& in = (keys ? floats.memory.entries().keys : floats.memory.entries().values)[m];
      const auto& out = (keys ? halves.memory.entries().keys : halves.memory.entries().values)[m];
      Rows& rows = (keys ? expected.keys : expected.values)[layer];
      for (size_t i = 0; i < in.size(); ++i) {
        EXPECT_EQ(out[i], static_cast<float>(BFloat16(in[i])));
        rows[i / kHidden][i % kHidden] = static_cast<float>(BFloat16(in[i]));
      }
    }
  }
  ExpectNear(after_overflow, plain_->Run({ids_[16]}, {}, expected).logits);
  EXPECT_GT(Difference(after_overflow, exact), kTolerance);
}

TEST_F(LongLlamaRulesTest, Rule13_GroupingOfTheMemoryAttentionChangesNothing) {
  const Rows expected = State(this).Run(Slice(ids_, 0, 50));
  // Neither divides the heads or the queries.
  for (const json& grouping : {json({3, 5}), json({1, 1}), json(nullptr)}) {
    Load({{"mem_attention_grouping", grouping}});
    EXPECT_EQ(Difference(State(this).Run(Slice(ids_, 0, 50)), expected), 0.0);
  }
}

TEST_F(LongLlamaRulesTest, Rule14_PaddingCountsForLengthsAndIsLeftOutOfTheMemory) {
  // 5 of padding and 25 tokens: [16: 11 tokens][8][6].
  State state(this);
  const Rows logits = state.Run(Slice(ids_, 0, 30), {.n_padding = 5});
  EXPECT_THAT(state.segments, ElementsAre(Segment{16, 0, 0}, Segment{8, 0, 16}, Segment{6, 0, 24}));
  EXPECT_EQ(state.session.memory_length(), 24);
  const auto first = plain_->Run(Slice(ids_, 5, 16), {}, {}, /*n_padding=*/5);
  const auto second = plain_->Run(Slice(ids_, 16, 24), {}, first.entries);
  ExpectMemory(state.memory, first.entries + second.entries);
  ExpectNear(Part(logits, 5, 16), first.logits);
  ExpectNear(Part(logits, 24, logits.size()),
             plain_->Run(Slice(ids_, 24, 30), {}, first.entries + second.entries).logits);

  // Positions count it, too, which shows against a memory.
  State padded(this, state.memory);
  const Entries memory = first.entries + second.entries;
  ExpectNear(Part(padded.Run(Slice(ids_, 30, 36), {.n_padding = 3}), 3, 6),
             plain_->Run(Slice(ids_, 33, 36), {}, memory, /*n_padding=*/3).logits);

  // In a local context: 4 of padding and 2 tokens leave room for 10 more.
  State local(this);
  local.Run(Slice(ids_, 0, 6), {.n_padding = 4});
  EXPECT_EQ(local.session.local_length(), 6);
  for (size_t i = 6; i < 16; ++i) local.Run({ids_[i]});
  EXPECT_EQ(local.session.local_length(), 16);
  local.Run({ids_[16]});
  EXPECT_EQ(local.session.local_length(), 1);
  EXPECT_EQ(local.session.memory_length(), 16);
  ExpectMemory(local.memory, plain_->Run(Slice(ids_, 4, 16), {}, {}, /*n_padding=*/4).entries);
}

TEST_F(LongLlamaRulesTest, Rule15_WithoutMemoryLayersWhatLeavesTheLocalContextIsForgotten) {
  Load({{"mem_layers", json::array()}});
  State state(this);
  const Rows logits = state.Run(Slice(ids_, 0, 50));
  // The same splits.
  EXPECT_THAT(state.Lengths(), ElementsAre(16, 16, 12, 6));
  ExpectNear(Part(logits, 16, 32), plain_->Run(Slice(ids_, 16, 32)).logits);
  // The same overflow.
  for (size_t i = 0; i < 11; ++i) state.Run({ids_[i]});
  EXPECT_EQ(state.session.local_length(), 1);
  ExpectNear(state.Run({ids_[11]}), {plain_->Run(Slice(ids_, 10, 12)).logits[1]});
  // LLaMA while it fits.
  LocalContext context;
  std::vector<float> llama;
  ASSERT_TRUE(model_->Forward({ids_.data(), 6}, &context, nullptr, &llama).ok());
  const Rows short_prompt = State(this).Run(Slice(ids_, 0, 6));
  ExpectNear({short_prompt.back()}, {Row(llama.begin(), llama.end())});
}

TEST_F(LongLlamaRulesTest, Rule16_LogitsOfAllPositionsOfACallAreReturned) {
  State all(this);
  const Rows logits = all.Run(Slice(ids_, 0, 40));
  ASSERT_EQ(logits.size(), 40u);
  // One call after the other gives the rows of each, in order.
  State windows(this);
  Rows expected;
  for (const auto& [begin, end] : {std::pair<size_t, size_t>{0, 16}, {16, 32}, {32, 34}}) {
    for (const Row& row :
         windows.Run(Slice(ids_, begin, end), {.use_cache = false, .last_context_length = 16})) {
      expected.push_back(row);
    }
  }
  for (const Row& row : windows.Run(Slice(ids_, 34, 40))) expected.push_back(row);
  ExpectNear(logits, expected);
  // Who asks for the last position alone gets that.
  State last(this);
  std::vector<float> row;
  ASSERT_TRUE(last.session.Run({.ids = {ids_.data(), 40}}, &row).ok());
  ExpectNear({Row(row.begin(), row.end())}, {logits.back()});
}

TEST_F(LongLlamaRulesTest, Rule17_WhatTheConfigurationLeavesOut) {
  json config = TinyConfig();
  for (const char* key :
       {"max_position_embeddings", "last_context_length", "mem_layers", "mem_dtype"}) {
    config.erase(key);
  }
  auto model = Open(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->config().rope_theta, 10000.0f);
  EXPECT_EQ((*model)->config().rms_norm_eps, 1e-6f);
  EXPECT_EQ((*model)->config().max_position_embeddings, 2048);
  EXPECT_FALSE((*model)->config().tie_word_embeddings);
  EXPECT_FALSE((*model)->config().attention_bias);
  EXPECT_EQ((*model)->config().n_kv_heads, kHeads);
  EXPECT_EQ((*model)->config().head_dim, kHidden / kHeads);
  EXPECT_EQ((*model)->memory_config().last_context_length, 1024);
  EXPECT_TRUE((*model)->memory_config().mem_layers.empty());
  EXPECT_TRUE((*model)->memory_config().mem_positionals);
  EXPECT_EQ((*model)->memory_config().entry_type, EntryType::kBFloat16);

  config["rope_scaling"] = nullptr;
  EXPECT_TRUE(Open(config).ok());
  for (const json& scaling : {json({{"type", "linear"}, {"factor", 2.0}}),
                              json({{"type", "dynamic"}, {"factor", 2.0}})}) {
    config["rope_scaling"] = scaling;
    model = Open(config);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(model.status().ToString(), HasSubstr("key rope_scaling"));
  }

  // use_cache is true where a call does not say.
  State state(this);
  std::vector<float> logits;
  ASSERT_TRUE(state.session.Run({.ids = {ids_.data(), 6}}, &logits).ok());
  EXPECT_EQ(state.session.local_length(), 6);
}

TEST_F(LongLlamaRulesTest, Rule18_NormsAndAnglesAreFloat32) {
  // An epsilon that shows: it is added to the mean of the squares.
  Load({{"rms_norm_eps", 0.5}});
  ExpectNear(State(this).Run(Slice(ids_, 0, 6)), plain_->Run(Slice(ids_, 0, 6)).logits);

  // At far positions the float32 angle is another than the exact one, and the reference has that.
  constexpr int64_t kDim = 100;
  const std::vector<float> inverse = compute::RopeInverseFrequencies(kDim, 10000.0f, {});
  std::vector<float> x(kDim, 0.0f);
  std::fill(x.begin(), x.begin() + kDim / 2, 1.0f);
  ASSERT_TRUE(compute::Rope(*device_, {.x = {x.data(), {1, 1, kDim}},
                                       .inverse_frequencies = {inverse.data(), {kDim / 2}},
                                       .first_position = 2047})
                  .ok());
  double from_float = 0.0, from_double = 0.0;
  for (size_t i = 0; i < kDim / 2; ++i) {
    const float angle = 2047.0f * inverse[i];
    const double exact = 2047.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / kDim);
    from_float = std::max(from_float, std::abs(x[i] - std::cos(static_cast<double>(angle))));
    from_double = std::max(from_double, std::abs(x[i] - std::cos(exact)));
  }
  EXPECT_LT(from_float, 1e-6);
  EXPECT_GT(from_double, 2e-5);
}

TEST_F(LongLlamaRulesTest, Rule19_MemoriesOfEmptyStatesMergeInEitherOrder) {
  State one(this), other(this);
  one.Run(Slice(ids_, 0, 20), {.use_cache = false});
  other.Run(Slice(ids_, 20, 33), {.use_cache = false});
  const auto merged = [&](const State& first, const State& second) {
    State both(this, first.memory);
    EXPECT_TRUE(both.memory.Append(second.memory.entries()).ok());
    EXPECT_EQ(both.session.memory_length(), 33);
    return both.Run(Slice(ids_, 40, 46));
  };
  const Rows logits = merged(one, other);
  ExpectNear(logits, merged(other, one));

  const auto document = [&](size_t begin, size_t end) {
    const auto window = plain_->Run(Slice(ids_, begin, end - 6));
    return window.entries + plain_->Run(Slice(ids_, end - 6, end), {}, window.entries).entries;
  };
  ExpectNear(logits,
             plain_->Run(Slice(ids_, 40, 46), {}, document(0, 20) + document(20, 33)).logits);
}

}  // namespace
}  // namespace fovea::model
