// A stored memory made and asked LongLLaMA's way gives what its inference gives in one process,
// with everything in RAM (which tests/model/longllama_parity_test.cc compares with the public
// code).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "answer/answerer.h"
#include "model/reference_session.h"
#include "nlohmann/json.hpp"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

using model::DenseMemory;
using model::EntryType;
using model::ReferenceSession;

constexpr int kWindow = 64;
constexpr int kLastContext = 24;

class ReferenceTest : public TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    const std::filesystem::path path = folder_ / "model" / "config.json";
    nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
    config["model_type"] = "longllama";
    config["max_position_embeddings"] = kWindow;
    config["last_context_length"] = kLastContext;
    config["mem_layers"] = {1, 2};
    std::ofstream(path) << config;
    LoadModel();
    OpenMemory();
  }

  void Ingest(const std::string& title, const std::string& text, const std::string& source = "") {
    memory::IngestOptions options;
    options.model_name = "tiny";
    options.adapter_name = "none";
    options.encode_batch_tokens = 100;  // a document takes several commits
    options.on_document = [this](const memory::IngestedDocument& document) {
      statuses_.push_back(document.status);
    };
    auto ingester = memory::Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok()) << ingester.status();
    const auto document = documents::MakeTextDocument(title, source.empty() ? title : source, text);
    document->replaceable = !source.empty();
    absl::Status status = (*ingester)->Add(*document, "default");
    ASSERT_TRUE(status.ok()) << status;
    status = (*ingester)->Finish();
    ASSERT_TRUE(status.ok()) << status;
  }

  static std::string TextOf(size_t n_bytes, int seed) {
    std::string text;
    for (size_t i = 0; i < n_bytes; ++i) {
      text += static_cast<char>('a' + (i * i + static_cast<size_t>(seed) * i + i / 7) % 26);
    }
    return text;
  }

  // The same documents in RAM.
  void Remember(DenseMemory* memory, const std::string& text) {
    ReferenceSession session(model_.get(), memory);
    const auto ids = model_->tokenizer().Encode(text).ids;
    const absl::Status status = session.Run({.ids = ids, .use_cache = false}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }

  // What greedy decoding says after `prompt` with everything in RAM.
  std::string Expected(DenseMemory memory, const std::string& prompt, int n_tokens) {
    ReferenceSession session(model_.get(), &memory);
    std::vector<int32_t> ids;
    const auto& spec = model_->tokenizer().spec();
    if (spec.add_bos && spec.bos_id >= 0) ids.push_back(spec.bos_id);
    for (const int32_t id : model_->tokenizer().Encode(prompt).ids) ids.push_back(id);
    std::vector<float> logits;
    EXPECT_TRUE(session.Run({.ids = ids}, &logits).ok());
    std::vector<int32_t> answer;
    while (true) {
      const auto best =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      if (model_->tokenizer().IsEnd(best)) break;
      answer.push_back(best);
      if (static_cast<int>(answer.size()) == n_tokens) break;
      EXPECT_TRUE(session.Run({.ids = {&answer.back(), 1}}, &logits).ok());
    }
    model::StreamDecoder decoder(model_->tokenizer());
    std::string text;
    for (const int32_t id : answer) text += decoder.Push(id);
    return text += decoder.Finish();
  }

  Answer Ask(const std::string& prompt, int n_tokens,
             std::optional<memory::SearchMode> mode = std::nullopt) {
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    AskOptions options;
    options.raw = true;
    options.max_tokens = n_tokens;
    options.mode = mode;
    options.top_k = 1000;
    auto answer = (*answerer)->Ask(prompt, options, nullptr, {});
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *std::move(answer) : Answer();
  }

  std::vector<memory::IngestStatus> statuses_;
};

TEST_F(ReferenceTest, StoresWhatTheWindowsOfTheReferenceHold) {
  Ingest("first", TextOf(100, 1));
  Ingest("second", TextOf(333, 2));
  ASSERT_EQ(memory_->settings()->encoding, "reference");
  DenseMemory expected(device_.get(), EntryType::kBFloat16);
  Remember(&expected, TextOf(100, 1));
  Remember(&expected, TextOf(333, 2));

  // Splits: 76 + 24 → [64][12][24]; 309 + 24 → [64]·4, [53], [24].
  const auto generation = memory_->Current();
  std::vector<uint32_t> lengths;
  for (const memory::LiveWindow& window : generation->windows) lengths.push_back(window.n_tokens);
  EXPECT_THAT(lengths, testing::ElementsAre(64, 12, 24, 64, 64, 64, 64, 53, 24));

  // A rounding may go the other way where sums were taken in another order.
  int64_t n_values = 0, n_different = 0;
  const int64_t n_heads = model_->config().n_kv_heads;
  const int64_t head_dim = model_->config().head_dim;
  for (int layer = 0; layer < 2; ++layer) {
    const std::vector<float>& keys = expected.entries().keys[static_cast<size_t>(layer)];
    int64_t token = 0;
    for (const memory::LiveWindow& window : generation->windows) {
      const auto block = memory_->store().GetBlock(window.slot_begin, layer,
                                                   storage::DocumentStore::BlockPart::kKeys);
      ASSERT_TRUE(block.ok()) << block.status();
      for (int64_t t = 0; t < block->n_tokens; ++t, ++token) {
        for (int64_t h = 0; h < n_heads; ++h) {
          for (int64_t i = 0; i < head_dim; ++i) {
            const float want = keys[static_cast<size_t>((token * n_heads + h) * head_dim + i)];
            const auto have = static_cast<float>(
                block->keys[static_cast<size_t>((h * block->n_tokens + t) * head_dim + i)]);
            ++n_values;
            n_different += have != want ? 1 : 0;
            ASSERT_NEAR(have, want, 0.01 * std::abs(want) + 1e-4);
          }
        }
      }
    }
  }
  EXPECT_EQ(n_values, 2 * 433 * n_heads * head_dim);
  EXPECT_LT(n_different, n_values / 100);
}

TEST_F(ReferenceTest, AnswersAsTheReferenceDoes) {
  Ingest("first", TextOf(100, 1));
  Ingest("second", TextOf(333, 2));
  DenseMemory memory(device_.get(), EntryType::kBFloat16);
  Remember(&memory, TextOf(100, 1));
  Remember(&memory, TextOf(333, 2));
  // One that stays in the window, one that is split, and answers that overflow.
  for (const size_t n_bytes : {20, 150}) {
    const std::string prompt = TextOf(n_bytes, 5);
    const std::string expected = Expected(memory, prompt, 90);
    const Answer answer = Ask(prompt, 90);
    EXPECT_EQ(answer.text, expected) << n_bytes;
    EXPECT_EQ(answer.usage.memory_tokens, 433u);
    // With k as large as the memory the exact search attends to everything, too.
    EXPECT_EQ(Ask(prompt, 90, memory::SearchMode::kExact).text, expected) << n_bytes;
  }
}

TEST_F(ReferenceTest, APromptWithoutAMemoryIsSplitAsWell) {
  const std::string prompt = TextOf(150, 5);
  EXPECT_EQ(Ask(prompt, 50).text,
            Expected(DenseMemory(device_.get(), EntryType::kBFloat16), prompt, 50));
}

// The old version is not among what the new one attends to, and stays until that is stored.
TEST_F(ReferenceTest, ANewVersionDoesNotSeeTheOldOne) {
  Ingest("first", TextOf(100, 1));
  Ingest("old", TextOf(200, 2), "a.txt");
  Ingest("new", TextOf(200, 3), "a.txt");
  EXPECT_EQ(statuses_.back(), memory::IngestStatus::kReplaced);
  DenseMemory memory(device_.get(), EntryType::kBFloat16);
  Remember(&memory, TextOf(100, 1));
  Remember(&memory, TextOf(200, 3));
  EXPECT_EQ(Ask(TextOf(20, 5), 40).text, Expected(memory, TextOf(20, 5), 40));
}

}  // namespace
}  // namespace fovea::answer
