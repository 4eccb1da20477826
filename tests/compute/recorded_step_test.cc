// A step of one token that is recorded and replayed comes to what its ops come to one by one, bit
// for bit, token after token; and any other order of ops to what that order is.
#include <algorithm>
#include <cstring>
#include <functional>

#include "compute/arg_max.h"
#include "compute/attention.h"
#include "compute/decode_attention.h"
#include "compute/embedding.h"
#include "compute/linear.h"
#include "compute/qk_norm.h"
#include "compute/rope.h"
#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

class RecordedStepTest : public testing::TestWithParam<std::string> {};

struct Shape {
  int64_t hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab;
  std::vector<DType> types;  // of the weights in turn
  bool in_bf16 = true;       // keys and values
  bool rotates = true;
  bool has_bias = false;
  int n_layers = 2;
  int64_t room = 40;
  std::vector<int32_t> rows = {0, 1, 2};  // of the tokens
  bool has_qk_norm = false;
};

// What a model's step refers to.
class Step {
 public:
  Step(Device& device, const Shape& shape) : device_(device), s_(shape) {
    const int64_t q = s_.n_heads * s_.head_dim;
    const int64_t kv = s_.n_kv_heads * s_.head_dim;
    for (int l = 0; l < s_.n_layers; ++l) {
      Layer layer;
      layer.attention_norm = Upload(RandomFloats(static_cast<size_t>(s_.hidden), NextSeed()));
      layer.mlp_norm = Upload(RandomFloats(static_cast<size_t>(s_.hidden), NextSeed()));
      layer.q_norm = Upload(RandomFloats(static_cast<size_t>(s_.head_dim), NextSeed()));
      layer.k_norm = Upload(RandomFloats(static_cast<size_t>(s_.head_dim), NextSeed()));
      layer.q = Make(q, s_.hidden);
      layer.k = Make(kv, s_.hidden);
      layer.v = Make(kv, s_.hidden);
      layer.o = Make(s_.hidden, q);
      layer.gate = Make(s_.intermediate, s_.hidden);
      n_made_ -= 1;  // the two have one type
      layer.up = Make(s_.intermediate, s_.hidden);
      layer.down = Make(s_.hidden, s_.intermediate);
      const auto n = static_cast<size_t>(s_.room * kv);
      layer.keys = Entries(n);
      layer.values = Entries(n);
      layers_.push_back(std::move(layer));
    }
    head_ = Make(s_.vocab, s_.hidden);
    table_ = Upload(RandomFloats(static_cast<size_t>(s_.vocab * s_.hidden), NextSeed()));
    frequencies_ = Upload(RopeInverseFrequencies(s_.head_dim, 10000.0f, {}));
    pinned_ = *device.AllocatePinned(3 * sizeof(int32_t));
    input_ = *device.Allocate(3 * sizeof(int32_t));
    for (const auto& [buffer, n] : {std::pair{&x_, s_.hidden},
                                    {&normed_, s_.hidden},
                                    {&q_, q},
                                    {&rotated_, q},
                                    {&attention_, q},
                                    {&k_, kv},
                                    {&v_, kv},
                                    {&gate_, s_.intermediate},
                                    {&up_, s_.intermediate},
                                    {&lse_, s_.n_heads},
                                    {&logits_, s_.vocab},
                                    {&best_, int64_t{1}}}) {
      *buffer = *device.Allocate(static_cast<size_t>(n) * sizeof(float));
    }
  }

  void SetInput(int32_t row, int32_t position, int32_t id) {
    const int32_t input[] = {row, position, id};
    std::memcpy(pinned_.data<void>(), input, sizeof(input));
  }

  absl::Status Queue() {
    const int64_t kv = s_.n_kv_heads * s_.head_dim;
    const auto row = [](const Buffer& buffer, int64_t n) -> View {
      return {buffer.data<float>(), {1, n}};
    };
    const auto heads = [&](const Buffer& buffer, int64_t n) -> View {
      return {buffer.data<float>(), {n, s_.head_dim}};
    };
    const auto norm = [&](const Buffer& weight) -> Linear::Norm {
      return {{weight.data<float>(), {s_.hidden}}, 1e-5f, row(normed_, s_.hidden)};
    };
    const View x = row(x_, s_.hidden);
    const int64_t q = s_.n_heads * s_.head_dim;
    RETURN_IF_ERROR(
        device_.CopyFromPinned(pinned_.data<void>(), 3 * sizeof(int32_t), input_.data<void>()));
    RETURN_IF_ERROR(Embedding(device_, {.table = {table_.data<float>(), {s_.vocab, s_.hidden}},
                                        .device_id = input_.data<int32_t>() + 2,
                                        .out = x}));
    for (const Layer& l : layers_) {
      const Linear::Output projections[] = {
          {l.q.get(), row(q_, q)}, {l.k.get(), row(k_, kv)}, {l.v.get(), row(v_, kv)}};
      RETURN_IF_ERROR(Linear::ForwardNormed(device_, projections, x, norm(l.attention_norm)));
      if (s_.has_qk_norm) {
        RETURN_IF_ERROR(
            QkNorm(device_, {.queries = {q_.data<float>(), {1, s_.n_heads, s_.head_dim}},
                             .keys = {k_.data<float>(), {1, s_.n_kv_heads, s_.head_dim}},
                             .query_weight = {l.q_norm.data<float>(), {s_.head_dim}},
                             .key_weight = {l.k_norm.data<float>(), {s_.head_dim}}}));
      }
      const DType dtype = s_.in_bf16 ? DType::kBF16 : DType::kF32;
      RETURN_IF_ERROR(DecodeAttention(
          device_,
          {.query = heads(q_, s_.n_heads),
           .rotated = heads(rotated_, s_.n_heads),
           .key = heads(k_, s_.n_kv_heads),
           .value = heads(v_, s_.n_kv_heads),
           .keys = {dtype, l.keys.data<void>(), {s_.room, s_.n_kv_heads, s_.head_dim}},
           .values = {dtype, l.values.data<void>(), {s_.room, s_.n_kv_heads, s_.head_dim}},
           .place = input_.data<TokenPlace>(),
           .inverse_frequencies =
               s_.rotates ? ConstView(frequencies_.data<float>(), {s_.head_dim / 2}) : ConstView(),
           .scale = 0.2f,
           .output = heads(attention_, s_.n_heads),
           .lse = {lse_.data<float>(), {s_.n_heads}}}));
      RETURN_IF_ERROR(l.o->Forward(device_, row(attention_, q), true, x));
      RETURN_IF_ERROR(Linear::ForwardGated(device_, {l.gate.get(), row(gate_, s_.intermediate)},
                                           {l.up.get(), row(up_, s_.intermediate)}, x,
                                           norm(l.mlp_norm)));
      RETURN_IF_ERROR(l.down->Forward(device_, row(gate_, s_.intermediate), true, x));
    }
    const Linear::Output logits{head_.get(), row(logits_, s_.vocab)};
    RETURN_IF_ERROR(
        Linear::ForwardNormed(device_, {&logits, 1}, x, norm(layers_[0].attention_norm)));
    return ArgMax(device_,
                  {.x = {logits_.data<float>(), {s_.vocab}}, .out = best_.data<int32_t>()});
  }

  // All that a step leaves behind.
  struct Result {
    std::string name;
    std::vector<uint16_t> words;
  };
  std::vector<Result> Results() const {
    std::vector<Result> all;
    const auto add = [&](std::string name, const Buffer& buffer) {
      Result result{std::move(name), std::vector<uint16_t>(buffer.size_bytes() / 2)};
      EXPECT_TRUE(
          device_.CopyToHost(buffer.data<void>(), buffer.size_bytes(), result.words.data()).ok());
      all.push_back(std::move(result));
    };
    for (size_t l = 0; l < layers_.size(); ++l) {
      add(StrCat("keys of layer ", l), layers_[l].keys);
      add(StrCat("values of layer ", l), layers_[l].values);
    }
    add("q of the last layer", q_);
    add("its rotated", rotated_);
    add("its attention", attention_);
    add("its lse", lse_);
    add("its gate", gate_);
    add("x", x_);
    add("logits", logits_);
    add("best", best_);
    return all;
  }
  // Before a run.
  void Poison() {
    for (const Buffer* buffer :
         {&x_, &q_, &rotated_, &attention_, &k_, &v_, &gate_, &lse_, &logits_, &best_}) {
      EXPECT_TRUE(device_
                      .Fill(std::numeric_limits<float>::quiet_NaN(),
                            static_cast<int64_t>(buffer->size_bytes() / sizeof(float)),
                            buffer->data<float>())
                      .ok());
    }
    for (Layer& l : layers_) {
      EXPECT_TRUE(
          device_.Copy(l.first_keys.data<void>(), l.keys.size_bytes(), l.keys.data<void>()).ok());
      EXPECT_TRUE(
          device_.Copy(l.first_keys.data<void>(), l.keys.size_bytes(), l.values.data<void>()).ok());
    }
  }

  Device& device() { return device_; }

 private:
  struct Layer {
    Buffer attention_norm, mlp_norm, q_norm, k_norm, keys, values, first_keys;
    std::unique_ptr<Linear> q, k, v, o, gate, up, down;
  };

  uint32_t NextSeed() { return ++seed_; }
  Buffer Upload(const std::vector<float>& values) { return ToDevice(device_, values); }
  Buffer Entries(size_t n) {
    const std::vector<float> values = RandomFloats(n, NextSeed());
    if (!s_.in_bf16) return ToDevice(device_, values);
    return ToDevice(device_, std::vector<BFloat16>(values.begin(), values.end()));
  }
  std::unique_ptr<Linear> Make(int64_t out_features, int64_t in_features) {
    const DType dtype = s_.types[static_cast<size_t>(n_made_++) % s_.types.size()];
    const std::vector<std::byte> stored =
        Quantize(dtype, RandomFloats(static_cast<size_t>(out_features * in_features), NextSeed(),
                                     1.0f / std::sqrt(static_cast<float>(in_features))));
    weights_.push_back(*device_.UploadConstant(stored.data(), stored.size()));
    LinearWeights weights{
        .name = "w", .weight = {dtype, weights_.back().data<void>(), {out_features, in_features}}};
    if (s_.has_bias) {
      weights_.push_back(Upload(RandomFloats(static_cast<size_t>(out_features), NextSeed())));
      weights.bias = {weights_.back().data<float>(), {out_features}};
    }
    return *Linear::Create(device_, weights);
  }

  Device& device_;
  const Shape s_;
  uint32_t seed_ = 0;
  int n_made_ = 0;
  std::vector<Buffer> weights_;
  std::vector<Layer> layers_;
  std::unique_ptr<Linear> head_;
  Buffer table_, frequencies_, pinned_, input_, x_, normed_, q_, rotated_, attention_, k_, v_,
      gate_, up_, lse_, logits_, best_;

  friend void KeepFirstEntries(Step& step);
};

void KeepFirstEntries(Step& step) {
  for (Step::Layer& l : step.layers_) {
    l.first_keys = *step.device_.Allocate(l.keys.size_bytes());
    ASSERT_TRUE(
        step.device_.Copy(l.keys.data<void>(), l.keys.size_bytes(), l.first_keys.data<void>())
            .ok());
  }
}

void ExpectSame(const std::vector<Step::Result>& actual, const std::vector<Step::Result>& expected,
                const std::string& what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto& a = actual[i].words;
    const auto& e = expected[i].words;
    const auto at = std::mismatch(a.begin(), a.end(), e.begin());
    if (at.first == a.end()) continue;
    const auto first = static_cast<size_t>(at.first - a.begin()) / 2 * 2;
    const auto value = [&](const std::vector<uint16_t>& words) {
      float f;
      std::memcpy(&f, words.data() + first, sizeof(f));
      return f;
    };
    FAIL() << what << ": " << expected[i].name << ", byte " << 2 * first << " of " << 2 * a.size()
           << ": " << value(a) << ", want " << value(e) << " (float32)";
  }
}

void ExpectSameBits(Device& device, const Shape& shape, const std::string& what) {
  Step step(device, shape);
  KeepFirstEntries(step);
  std::vector<std::vector<Step::Result>> expected;
  step.Poison();
  for (const int32_t row : shape.rows) {
    step.SetInput(row, row + 5, (7 * row + 3) % static_cast<int32_t>(shape.vocab));
    ASSERT_TRUE(step.Queue().ok()) << what;
    expected.push_back(step.Results());
  }
  auto recording = device.Record([&] { return step.Queue(); });
  ASSERT_TRUE(recording.ok()) << recording.status();
  // Twice: nothing that a replay leaves behind is taken for the next one's.
  for (int round = 0; round < 2; ++round) {
    step.Poison();
    for (size_t i = 0; i < shape.rows.size(); ++i) {
      const int32_t row = shape.rows[i];
      step.SetInput(row, row + 5, (7 * row + 3) % static_cast<int32_t>(shape.vocab));
      ASSERT_TRUE((*recording)->Replay().ok());
      ExpectSame(step.Results(), expected[i], StrCat(what, ", round ", round, ", row ", row));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST_P(RecordedStepTest, IsItsOpsBitForBit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  if (!device->CanRecord()) GTEST_SKIP() << "recording does not pay on this device";
  for (const DType dtype : kAllDTypes) {
    ExpectSameBits(*device, {256, 4, 2, 64, 512, 300, {dtype}},
                   StrCat("all weights ", Traits(dtype).name));
  }
  const std::vector<int32_t> rows = {0, 1, 126, 127, 128, 129, 300, 511, 512, 699};
  ExpectSameBits(*device,
                 {.hidden = 576,
                  .n_heads = 9,
                  .n_kv_heads = 3,
                  .head_dim = 64,
                  .intermediate = 1536,
                  .vocab = 5001,
                  .types = {DType::kQ4_1},
                  .n_layers = 5,
                  .room = 700,
                  .rows = rows},
                 "narrow, many keys");
  ExpectSameBits(*device,
                 {.hidden = 1600,
                  .n_heads = 16,
                  .n_kv_heads = 16,
                  .head_dim = 100,
                  .intermediate = 4328,
                  .vocab = 3000,
                  .types = {DType::kBF16},
                  .room = 700,
                  .rows = rows},
                 "wide");
  // More runs of keys than a cluster has blocks.
  ExpectSameBits(*device,
                 {.hidden = 256,
                  .n_heads = 4,
                  .n_kv_heads = 1,
                  .head_dim = 64,
                  .intermediate = 256,
                  .vocab = 64,
                  .types = {DType::kBF16},
                  .room = 2500,
                  .rows = {0, 127, 1100, 2300, 2499}},
                 "many runs");
  // So many keys that a run of them is more than one pass.
  ExpectSameBits(*device,
                 {.hidden = 512,
                  .n_heads = 32,
                  .n_kv_heads = 32,
                  .head_dim = 16,
                  .intermediate = 256,
                  .vocab = 64,
                  .types = {DType::kQ8_0},
                  .room = 5000,
                  .rows = {0, 127, 700, 4000, 4999}},
                 "long runs");
  ExpectSameBits(*device, {32, 2, 1, 16, 40, 50, {DType::kF32}, false}, "less than blocks");
  ExpectSameBits(*device, {96, 3, 3, 32, 64, 7, {DType::kF16}, false, false, true}, "with a bias");
  ExpectSameBits(*device, {288, 3, 1, 96, 320, 50, {DType::kQ8_0, DType::kBF16, DType::kQ4_1}},
                 "weights of several types");
  ExpectSameBits(*device, {512, 4, 4, 128, 512, 50, {DType::kQ5_K, DType::kQ6_K}, true, true, true},
                 "128 dimensions");
  ExpectSameBits(*device,
                 {.hidden = 256,
                  .n_heads = 8,
                  .n_kv_heads = 2,
                  .head_dim = 128,
                  .intermediate = 512,
                  .vocab = 300,
                  .types = {DType::kBF16, DType::kQ8_0},
                  .n_layers = 6,
                  .room = 700,
                  .rows = rows,
                  .has_qk_norm = true},
                 "QK-norm");
  ExpectSameBits(*device, {512, 2, 1, 256, 512, 50, {DType::kF32}}, "256 dimensions");
  ExpectSameBits(*device, {60, 10, 5, 6, 68, 50, {DType::kF32}}, "odd widths");
  ExpectSameBits(*device, {256, 4, 2, 64, 512, 300, {DType::kBF16}, false}, "float32 keys, 64");
  ExpectSameBits(*device, {400, 4, 2, 100, 512, 300, {DType::kBF16}, false}, "float32 keys, 100");
}

TEST_P(RecordedStepTest, OfManyLayersToo) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  if (!device->CanRecord()) GTEST_SKIP() << "recording does not pay on this device";
  ExpectSameBits(*device,
                 {.hidden = 64,
                  .n_heads = 4,
                  .n_kv_heads = 2,
                  .head_dim = 16,
                  .intermediate = 96,
                  .vocab = 100,
                  .types = {DType::kQ4_0},
                  .n_layers = 90,
                  .rows = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
                 "90 layers");
  ExpectSameBits(*device,
                 {.hidden = 64,
                  .n_heads = 4,
                  .n_kv_heads = 2,
                  .head_dim = 32,
                  .intermediate = 96,
                  .vocab = 100,
                  .types = {DType::kBF16},
                  .n_layers = 60,
                  .rows = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
                  .has_qk_norm = true},
                 "60 layers with QK-norm");
}

// Ops in an order that no model has: each sees what those before it left.
TEST_P(RecordedStepTest, AnyOrderIsTheOrderOfTheCalls) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  if (!device->CanRecord()) GTEST_SKIP() << "recording does not pay on this device";
  constexpr int64_t kN = 512;
  std::vector<Buffer> stored, rows;
  std::vector<std::unique_ptr<Linear>> linears;
  for (uint32_t i = 0; i < 3; ++i) {
    const std::vector<std::byte> weight = Quantize(DType::kQ8_0, RandomFloats(kN * kN, i, 0.05f));
    stored.push_back(*device->UploadConstant(weight.data(), weight.size()));
    linears.push_back(*Linear::Create(
        *device, {.name = "w", .weight = {DType::kQ8_0, stored.back().data<void>(), {kN, kN}}}));
  }
  std::vector<std::vector<float>> first;
  for (uint32_t i = 0; i < 4; ++i) {
    first.push_back(RandomFloats(kN, 10 + i));
    rows.push_back(ToDevice(*device, first.back()));
  }
  const Buffer norm_weight = ToDevice(*device, RandomFloats(kN, 20));
  const Buffer normed = *device->Allocate(kN * sizeof(float));
  std::mt19937 generator(3);
  const auto pick = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(generator);
  };
  for (int round = 0; round < 40; ++round) {
    struct Op {
      int kind;
      size_t linear, from, to, second;
    };
    std::vector<Op> ops;
    for (int i = 0; i < 12; ++i) {
      Op op{static_cast<int>(pick(6)), pick(3), pick(4), pick(4), pick(4)};
      // Often the next one reads what this one wrote, as in a model.
      if (!ops.empty() && pick(3) > 0) op.from = ops.back().to;
      if (op.from == op.to) op.to = (op.to + 1) % 4;
      while (op.second == op.from || op.second == op.to) op.second = (op.second + 1) % 4;
      ops.push_back(op);
    }
    const auto view = [&](size_t i) { return View(rows[i].data<float>(), {1, kN}); };
    const auto queue = [&]() -> absl::Status {
      for (const Op& op : ops) {
        const Linear& linear = *linears[op.linear];
        const Linear::Norm norm{
            {norm_weight.data<float>(), {kN}}, 1e-5f, {normed.data<float>(), {1, kN}}};
        const Linear::Output two[] = {{&linear, view(op.to)}, {linears[0].get(), view(op.second)}};
        switch (op.kind) {
          case 0:
            RETURN_IF_ERROR(linear.Forward(*device, view(op.from), false, view(op.to)));
            break;
          case 1:
            RETURN_IF_ERROR(linear.Forward(*device, view(op.from), true, view(op.to)));
            break;
          case 2:
            RETURN_IF_ERROR(Linear::ForwardNormed(*device, two, view(op.from), norm));
            break;
          case 3:
            RETURN_IF_ERROR(Linear::ForwardGated(*device, two[0], two[1], view(op.from), norm));
            // The second has any content now.
            RETURN_IF_ERROR(device->Fill(0.5f, kN, rows[op.second].data<float>()));
            break;
          case 4: {
            const auto heads = [&](size_t i) {
              return View(rows[i].data<float>(), {1, 4, kN / 4});
            };
            const ConstView weight(norm_weight.data<float>(), {kN / 4});
            RETURN_IF_ERROR(QkNorm(*device, {.queries = heads(op.to),
                                             .keys = heads(op.second),
                                             .query_weight = weight,
                                             .key_weight = weight}));
            break;
          }
          default:
            RETURN_IF_ERROR(device->Copy(rows[op.from].data<void>(), kN * sizeof(float),
                                         rows[op.to].data<void>()));
        }
        // Numbers stay in bounds.
        if (op.kind == 1) {
          RETURN_IF_ERROR(Linear::ForwardNormed(*device, {two, 1}, view(op.from), norm));
        }
      }
      return absl::OkStatus();
    };
    const auto run = [&](const std::function<absl::Status()>& call) {
      for (size_t i = 0; i < rows.size(); ++i) {
        EXPECT_TRUE(
            device->CopyFromHost(first[i].data(), kN * sizeof(float), rows[i].data<void>()).ok());
      }
      EXPECT_TRUE(call().ok());
      std::vector<std::vector<float>> results;
      for (const Buffer& row : rows) results.push_back(ToHost(*device, row, kN));
      return results;
    };
    const auto expected = run(queue);
    auto recording = device->Record(queue);
    ASSERT_TRUE(recording.ok()) << recording.status();
    for (int replay = 0; replay < 3; ++replay) {
      const auto actual = run([&] { return (*recording)->Replay(); });
      for (size_t i = 0; i < rows.size(); ++i) {
        ASSERT_EQ(std::memcmp(actual[i].data(), expected[i].data(), kN * sizeof(float)), 0)
            << "round " << round << ", replay " << replay << ", row " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, RecordedStepTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
