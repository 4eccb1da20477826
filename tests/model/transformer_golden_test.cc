// The forward pass against the published implementation (data/make_transformer_goldens.py): tiny
// random models of every family and storage format, the default model, and its adapter.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "compute/device.h"
#include "golden_files.h"
#include "model/dense_memory.h"
#include "model/transformer.h"

namespace fovea::model {
namespace {

const std::filesystem::path kData = FOVEA_SOURCE_DIR "/tests/model/data/transformer";
const std::filesystem::path kAdapter = FOVEA_SOURCE_DIR "/models/smollm2-135m-fot-5";

// Logits are of several units up to 35; sums of at most 1,536 products in float32, in another
// order, through up to 30 layers.
constexpr float kTolerance = 1e-3f;

int32_t ArgMax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::unique_ptr<compute::Device> MakeDevice(int n_threads) {
  auto device = compute::Device::Create("cpu", n_threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

// The first n ids that greedy decoding goes on with after `logits` (of the last token in context).
std::vector<int32_t> Greedy(Transformer& model, std::vector<float> logits, size_t n,
                            LocalContext* context) {
  std::vector<int32_t> ids;
  while (ids.size() < n) {
    ids.push_back(ArgMax(logits));
    const absl::Status status = model.Forward({&ids.back(), 1}, context, nullptr, &logits);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) break;
  }
  return ids;
}

// --- Tiny models ---

class TinyModelTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = kData / GetParam();
    LoadOptions options;
    options.model = std::filesystem::exists(folder) ? folder : kData / (GetParam() + ".gguf");
    device_ = MakeDevice(2);
    auto model = Transformer::Load(device_.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const nlohmann::json golden = ReadGoldenJson(kData / (GetParam() + ".json"));
    prompt_ = golden["prompt_ids"].get<std::vector<int32_t>>();
    greedy_ids_ = golden["greedy_ids"].get<std::vector<int32_t>>();
    // Further from the second best than twice what the tolerance allows.
    ASSERT_GT(golden["min_margin"].get<float>(), 2 * kTolerance);
    logits_ = ReadGoldenTensor(kData / (GetParam() + ".expected.safetensors"));
    ASSERT_EQ(logits_.size(), prompt_.size() * model_->config().vocab_size);
  }

  // Compares rows of all_logits that begin at `first_position`.
  void ExpectGolden(const std::vector<float>& logits, size_t first_position) const {
    const size_t vocab_size = model_->config().vocab_size;
    float largest = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(logits[i] - logits_[first_position * vocab_size + i]));
    }
    RecordProperty("largest_difference", std::to_string(largest));
    EXPECT_LT(largest, kTolerance);
  }

  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Transformer> model_;
  std::vector<int32_t> prompt_;
  std::vector<int32_t> greedy_ids_;
  std::vector<float> logits_;  // [prompt, vocab_size]
};

TEST_P(TinyModelTest, LogitsOfAWholePromptAreThePublishedOnes) {
  LocalContext context;
  std::vector<float> logits;
  const absl::Status status = model_->Forward(prompt_, &context, nullptr, &logits, true);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(logits.size(), logits_.size());
  ExpectGolden(logits, 0);
}

TEST_P(TinyModelTest, LogitsDoNotDependOnHowThePromptIsCut) {
  // Single tokens take another path (straight from the stored weights) than many do.
  for (const std::vector<size_t>& cuts : {std::vector<size_t>{1, 2, 3, 34}, {39, 1}, {7, 33}}) {
    LocalContext context;
    size_t position = 0;
    for (const size_t n : cuts) {
      std::vector<float> logits;
      const absl::Status status = model_->Forward(std::span(prompt_).subspan(position, n), &context,
                                                  nullptr, &logits, true);
      ASSERT_TRUE(status.ok()) << status;
      ExpectGolden(logits, position);
      position += n;
    }
  }
}

TEST_P(TinyModelTest, GreedyDecodingChoosesThePublishedTokens) {
  LocalContext context;
  std::vector<float> logits;
  const absl::Status status = model_->Forward(prompt_, &context, nullptr, &logits);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(logits.size(), static_cast<size_t>(model_->config().vocab_size));
  EXPECT_EQ(Greedy(*model_, logits, greedy_ids_.size(), &context), greedy_ids_);
}

INSTANTIATE_TEST_SUITE_P(Folders, TinyModelTest,
                         testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3"));
INSTANTIATE_TEST_SUITE_P(Gguf, TinyModelTest,
                         testing::Values("llama-f16", "llama-q8_0", "llama-q4_0", "llama3-q4_1",
                                         "qwen2-q8_0", "qwen3-bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// --- A memory of a model with QK-norm ---

// qwen3.memory.safetensors: the reversed prompt as a memory, and the prompt on top of it.
class QkNormMemoryTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    device_ = MakeDevice(2);
    LoadOptions options;
    options.model = kData / "qwen3";
    options.mem_layers = {1};
    if (GetParam() == "adapter") options.adapter = kData / "qwen3-adapter";
    auto model = Transformer::Load(device_.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    prompt_ = ReadGoldenJson(kData / "qwen3.json")["prompt_ids"].get<std::vector<int32_t>>();
    document_.assign(prompt_.rbegin(), prompt_.rend());
    auto golden = SafetensorsFile::Open(kData / "qwen3.memory.safetensors");
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }
  std::vector<float> Golden(const std::string& part) const {
    for (const StoredTensor& tensor : golden_->tensors()) {
      if (tensor.name != StrCat(GetParam(), ".", part)) continue;
      std::vector<float> values(tensor.size_bytes / sizeof(float));
      std::memcpy(values.data(), tensor.data, tensor.size_bytes);
      return values;
    }
    ADD_FAILURE() << part;
    return {};
  }
  static void ExpectClose(const std::vector<float>& got, const std::vector<float>& want,
                          float tolerance) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
  }

  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Transformer> model_;
  std::vector<int32_t> prompt_, document_;
  std::unique_ptr<SafetensorsFile> golden_;
};

TEST_P(QkNormMemoryTest, HoldsNormedKeysThatAreNotRotated) {
  LocalContext window = LocalContext::ForWindow({});
  ASSERT_TRUE(model_->Forward(document_, &window, nullptr, nullptr).ok());
  const auto entries = model_->Entries(*device_, window);
  ASSERT_TRUE(entries.ok()) << entries.status();
  ExpectClose(entries->keys[0], Golden("keys"), kTolerance);
  ExpectClose(entries->values[0], Golden("values"), kTolerance);
}

TEST_P(QkNormMemoryTest, WindowsOfAnIngestHoldTheSame) {
  const WindowTokens window = {{}, document_};
  const auto encoded = model_->Encode({&window, 1});
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  for (const bool is_keys : {true, false}) {
    const EntryVector& got = is_keys ? (*encoded)[0].keys[0] : (*encoded)[0].values[0];
    const std::vector<float> want = Golden(is_keys ? "keys" : "values");
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      // Stored in bfloat16.
      ASSERT_NEAR(static_cast<float>(got[i]), want[i], std::abs(want[i]) * 0x1p-8f + kTolerance);
    }
  }
}

TEST_P(QkNormMemoryTest, ALayerAttendsToItAndToItsOwnKeysInOneSoftmax) {
  LocalContext window = LocalContext::ForWindow({});
  ASSERT_TRUE(model_->Forward(document_, &window, nullptr, nullptr).ok());
  auto entries = model_->Entries(*device_, window);
  ASSERT_TRUE(entries.ok()) << entries.status();
  DenseMemory memory(device_.get(), EntryType::kFloat32);
  ASSERT_TRUE(memory.Append(*std::move(entries)).ok());
  const std::vector<float> want = Golden("logits");
  for (const size_t n_first : {prompt_.size(), size_t{33}}) {  // as one, and with steps of a token
    LocalContext context;
    std::vector<float> logits;
    for (size_t begin = 0; begin < prompt_.size();) {
      const size_t n = begin == 0 ? n_first : 1;
      std::vector<float> rows;
      const absl::Status status =
          model_->Forward(std::span(prompt_).subspan(begin, n), &context, &memory, &rows, true);
      ASSERT_TRUE(status.ok()) << status;
      logits.insert(logits.end(), rows.begin(), rows.end());
      begin += n;
    }
    ExpectClose(logits, want, kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, QkNormMemoryTest, testing::Values("plain", "adapter"),
                         [](const auto& info) { return info.param; });

TEST(TwinTest, AGgufFileAndAFolderOfTheSameWeightsAreTheSameModel) {
  const auto device = MakeDevice(2);
  const auto prompt =
      ReadGoldenJson(kData / "qwen3.json")["prompt_ids"].get<std::vector<int32_t>>();
  std::vector<float> logits[2];
  for (int i = 0; i < 2; ++i) {
    LoadOptions options;
    options.model = kData / (i == 0 ? "qwen3" : "qwen3-bf16.gguf");
    const auto model = Transformer::Load(device.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    LocalContext context;
    ASSERT_TRUE((*model)->Forward(prompt, &context, nullptr, &logits[i], true).ok());
  }
  EXPECT_EQ(logits[0], logits[1]);
}

// --- The default model ---

class DefaultModelGoldenTest : public testing::Test {
 protected:
  void Load(bool with_adapter) {
    LoadOptions options;
    options.model = DefaultModelPath();
    if (with_adapter) options.adapter = kAdapter;
    device_ = MakeDevice(1);  // its many small steps suffer when others use the cores
    auto model = Transformer::Load(device_.get(), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  void SetUp() override {
    if (!std::filesystem::exists(DefaultModelPath())) {
      GTEST_SKIP() << DefaultModelPath() << " is absent: `fovea pull` fetches it";
    }
  }
  std::vector<float> LastLogits(const nlohmann::json& prompt_ids, LocalContext* context) {
    std::vector<float> logits;
    const absl::Status status =
        model_->Forward(prompt_ids.get<std::vector<int32_t>>(), context, nullptr, &logits);
    EXPECT_TRUE(status.ok()) << status;
    return logits;
  }
  // `golden`: [[id, logit], …], the largest ones, descending.
  static void ExpectTop(const std::vector<float>& logits, const nlohmann::json& golden,
                        float tolerance) {
    ASSERT_FALSE(golden.empty());
    float largest = 0;
    for (const auto& pair : golden) {
      largest =
          std::max(largest, std::abs(logits.at(pair[0].get<size_t>()) - pair[1].get<float>()));
    }
    RecordProperty("largest_difference", std::to_string(largest));
    EXPECT_LT(largest, tolerance);
    const float least = golden.back()[1].get<float>() - tolerance;
    const auto n_above = std::count_if(logits.begin(), logits.end(),
                                       [&](float l) { return l > least + 2 * tolerance; });
    EXPECT_LT(n_above, static_cast<int64_t>(golden.size())) << "others are larger";
  }

  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Transformer> model_;
};

TEST_F(DefaultModelGoldenTest, ComputesWhatThePublishedImplementationDoes) {
  Load(/*with_adapter=*/false);
  ASSERT_NE(model_, nullptr);
  for (const auto& golden : ReadGoldenJson(kData / "smollm2.json")) {
    LocalContext context;
    const std::vector<float> logits = LastLogits(golden["prompt_ids"], &context);
    ExpectTop(logits, golden["top_logits"], kTolerance);
    auto expected = golden["greedy_ids"].get<std::vector<int32_t>>();
    expected.resize(golden["n_clear"].get<size_t>());
    EXPECT_EQ(Greedy(*model_, logits, expected.size(), &context), expected);
  }
}

// data/default_adapter.json (data/make_adapter_golden.py).
class DefaultAdapterGoldenTest : public DefaultModelGoldenTest {
 protected:
  void SetUp() override {
    DefaultModelGoldenTest::SetUp();
    if (IsSkipped()) return;
    Load(/*with_adapter=*/true);
    golden_ = ReadGoldenJson(DefaultAdapterGoldenPath());
  }
  nlohmann::json golden_;
};

TEST_F(DefaultAdapterGoldenTest, EncodesTheKeysAndValuesOfTheGolden) {
  ASSERT_NE(model_, nullptr);
  const Encoding encoding = model_->tokenizer().Encode(golden_["text"].get<std::string>());
  ASSERT_EQ(encoding.ids.size(), golden_["n_tokens"].get<size_t>());
  const auto first_ids = golden_["first_ids"].get<std::vector<int32_t>>();
  EXPECT_TRUE(std::equal(first_ids.begin(), first_ids.end(), encoding.ids.begin()));

  constexpr size_t kWindow = 1024;
  const std::span<const int32_t> ids(encoding.ids);
  const std::vector<WindowTokens> windows = {{{}, ids.first(kWindow)}, {{}, ids.subspan(kWindow)}};
  const auto encoded = model_->Encode(windows);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  ASSERT_EQ(encoded->size(), 2u);
  const auto expect = [&](const std::vector<EntryVector> EncodedWindow::*part, size_t slot,
                          size_t head, size_t memory_layer, const nlohmann::json& golden) {
    const EncodedWindow& window = (*encoded)[slot / kWindow];
    const size_t begin = (slot % kWindow * 3 + head) * 64;
    ASSERT_EQ(golden.size(), 8u);
    for (size_t i = 0; i < golden.size(); ++i) {
      const float want = golden[i].get<float>();
      const auto got = static_cast<float>((window.*part)[memory_layer][begin + i]);
      // Stored in bfloat16: half a step of 2^-8 is relative, the rest is the float32 sums.
      EXPECT_NEAR(got, want, std::abs(want) * 0x1p-8f + kTolerance)
          << "slot " << slot << " head " << head << " memory layer " << memory_layer;
    }
  };
  const std::vector<int>& mem_layers = model_->memory_config().mem_layers;
  ASSERT_EQ(mem_layers, (std::vector<int>{8, 18, 23}));
  for (size_t m = 0; m < mem_layers.size(); ++m) {
    const nlohmann::json& probe = golden_["memory_probe"][std::to_string(mem_layers[m])];
    expect(&EncodedWindow::keys, 0, 0, m, probe["key_slot0_head0_first8"]);
    expect(&EncodedWindow::values, 0, 0, m, probe["value_slot0_head0_first8"]);
    expect(&EncodedWindow::keys, 1500, 2, m, probe["key_slot1500_head2_first8"]);
  }
}

TEST_F(DefaultAdapterGoldenTest, AnswersWithoutAMemoryAsTheGoldenDoes) {
  ASSERT_NE(model_, nullptr);
  ASSERT_EQ(golden_["questions"].size(), 4u);
  for (const auto& question : golden_["questions"]) {
    LocalContext context;
    const std::vector<float> logits = LastLogits(question["prompt_ids"], &context);
    ExpectTop(logits, question["none"]["last_logits_top8"], kTolerance);
    ASSERT_GT(question["none"]["min_margin"].get<float>(), 2 * kTolerance);
    const auto answer = question["none"]["answer_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(Greedy(*model_, logits, answer.size(), &context), answer) << question["question"];
  }
}

}  // namespace
}  // namespace fovea::model
