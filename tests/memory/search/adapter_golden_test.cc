// The default adapter against PyTorch (tests/model/data/make_adapter_golden.py): questions over a
// text in memory, with dense attention and with the exact 16 nearest keys.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "memory/block_layout.h"
#include "memory/memory.h"
#include "memory/search/searcher.h"
#include "tests/model/golden_files.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWindow = 1024;  // the golden's, each encoded alone

// Sums in float32, in another order; the golden's keys and values are rounded to bfloat16, too, of
// which a few may be rounded the other way. (Not rounded at all, its logits differ by up to 0.06.)
constexpr float kTolerance = 5e-3f;

class AdapterGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(model::DefaultModelPath())) {
      GTEST_SKIP() << model::DefaultModelPath() << " is absent: `fovea model pull smollm2`";
    }
    model::LoadOptions load;
    load.model = model::DefaultModelPath();
    load.adapter = FOVEA_SOURCE_DIR "/models/smollm2-135m-fot-5";
    golden_ = model::ReadGoldenJson(model::DefaultAdapterGoldenPath());
    device_ = *compute::Device::Create("cpu", 1);
    auto model = model::Transformer::Load(device_.get(), load);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    folder_ = fs::path(testing::TempDir()) /
              StrCat("golden-", testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    auto memory = Memory::Open(folder_, {.mode = storage::OpenMode::kCreate});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    const absl::Status status = Store(golden_["text"].get<std::string>());
    ASSERT_TRUE(status.ok()) << status;
  }
  void TearDown() override {
    memory_.reset();
    fs::remove_all(folder_);
  }

  // Not by the ingester, which cuts its windows elsewhere.
  absl::Status Store(const std::string& text) {
    const model::Encoding encoding = model_->tokenizer().Encode(text);
    EXPECT_EQ(encoding.ids.size(), 2 * kWindow);
    const std::span<const int32_t> ids(encoding.ids);
    const std::vector<model::WindowTokens> windows = {{{}, ids.first(kWindow)},
                                                      {{}, ids.subspan(kWindow)}};
    ASSIGN_OR_RETURN(const std::vector<model::EncodedWindow> encoded, model_->Encode(windows));
    storage::StoreSettings settings;
    settings.fingerprint = model_->fingerprint();
    settings.model = "smollm2";
    settings.window = kWindow;
    settings.encoding = "window-local";
    settings.index_spec = "exact";
    settings.n_mem_layers = static_cast<int>(model_->n_mem_layers());
    settings.n_kv_heads = static_cast<int>(model_->config().n_kv_heads);
    settings.head_dim = static_cast<int>(model_->config().head_dim);
    RETURN_IF_ERROR(memory_->InitializeSettings(settings));
    storage::DocumentRecord document;
    document.number = 1;
    document.id = "golden";
    document.sources = {{.source = "default_adapter.json", .collection = "default"}};
    document.size_bytes = text.size();
    document.n_tokens = ids.size();
    document.n_windows = static_cast<uint32_t>(windows.size());
    document.complete = true;
    storage::Mutation mutation;
    mutation.PutDocument(document);
    for (size_t w = 0; w < windows.size(); ++w) {
      storage::WindowRecord window;
      window.slot_begin = w * kWindow;
      window.ids.assign(windows[w].tokens.begin(), windows[w].tokens.end());
      const uint64_t begin = w == 0 ? 0 : encoding.ends[w * kWindow - 1];
      for (size_t i = 0; i < kWindow; ++i) {
        window.ends.push_back(static_cast<uint32_t>(encoding.ends[w * kWindow + i] - begin));
      }
      window.text = text.substr(begin, window.ends.back());
      window.passage_begins = {0};
      storage::WindowLink link;
      link.document = document.number;
      link.ordinal = static_cast<uint32_t>(w);
      link.slot_begin = window.slot_begin;
      link.n_tokens = kWindow;
      link.byte_begin = begin;
      link.n_bytes = window.ends.back();
      mutation.PutLink(link);
      mutation.PutWindow(window);
      for (int layer = 0; layer < settings.n_mem_layers; ++layer) {
        mutation.PutBlock(window.slot_begin, layer,
                          ToBlock(encoded[w], layer, settings.n_kv_heads, settings.head_dim,
                                  settings.entry_type));
      }
    }
    mutation.PutNextSlot(ids.size());
    mutation.PutNextDocumentNumber(2);
    RETURN_IF_ERROR(memory_->store().Commit(std::move(mutation)));
    return memory_->Publish();
  }

  void ExpectGolden(const std::string& name, SearchMode mode) {
    SearchOptions options;
    options.mode = mode;
    options.top_k = 16;
    ASSERT_EQ(golden_["questions"].size(), 4u);
    float largest = 0;
    for (const auto& question : golden_["questions"]) {
      SCOPED_TRACE(question["question"].get<std::string>());
      const auto searcher = MemorySearcher::Create(device_.get(), memory_->Current(), options);
      ASSERT_TRUE(searcher.ok()) << searcher.status();
      model::LocalContext context;
      std::vector<float> logits;
      absl::Status status = model_->Forward(question["prompt_ids"].get<std::vector<int32_t>>(),
                                            &context, searcher->get(), &logits);
      ASSERT_TRUE(status.ok()) << status;
      const nlohmann::json& expected = question[name];
      ASSERT_EQ(expected["last_logits_top8"].size(), 8u);
      for (const auto& pair : expected["last_logits_top8"]) {
        const float difference = std::abs(logits.at(pair[0].get<size_t>()) - pair[1].get<float>());
        largest = std::max(largest, difference);
        EXPECT_LT(difference, kTolerance) << "logit of token " << pair[0];
      }
      ASSERT_GT(expected["min_margin"].get<float>(), 2 * kTolerance);
      for (const auto& id : expected["answer_ids"]) {
        const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        ASSERT_EQ(best, id.get<int64_t>()) << "an answer other than " << expected["answer"];
        const auto next = static_cast<int32_t>(best);
        status = model_->Forward({&next, 1}, &context, searcher->get(), &logits);
        ASSERT_TRUE(status.ok()) << status;
      }
    }
    RecordProperty("largest_difference", std::to_string(largest));
  }

  fs::path folder_;
  nlohmann::json golden_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<Memory> memory_;
};

TEST_F(AdapterGoldenTest, DenseAttentionOverTheMemoryAnswersAsTheGoldenDoes) {
  ExpectGolden("dense", SearchMode::kDense);
}

TEST_F(AdapterGoldenTest, TheSixteenNearestKeysAnswerAsTheGoldenDoes) {
  ExpectGolden("top16", SearchMode::kExact);
}

}  // namespace
}  // namespace fovea::memory
