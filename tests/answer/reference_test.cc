// A stored memory made and asked LongLLaMA's way gives what its inference gives in one process,
// with everything in RAM (which tests/model/longllama_parity_test.cc compares with the public
// code).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "answer/answerer.h"
#include "answer/reference_memory.h"
#include "memory/search/searcher.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/reencode.h"
#include "memory/upkeep/verify.h"
#include "model/reference_session.h"
#include "model/sampler.h"
#include "nlohmann/json.hpp"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

using model::DenseMemory;
using model::ReferenceSession;

constexpr int kWindow = 64;
constexpr int kLastContext = 24;

class ReferenceTest : public TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    const absl::Status status =
        memory::SetConfig(folder_ / "model", {{"model_type", "longllama"},
                                              {"max_position_embeddings", kWindow},
                                              {"last_context_length", kLastContext},
                                              {"mem_layers", {1, 2}}});
    ASSERT_TRUE(status.ok()) << status;
    LoadModel();
    OpenMemory();
  }

  void SetMemDtype(const char* name) {
    const absl::Status status = memory::SetConfig(folder_ / "model", {{"mem_dtype", name}});
    ASSERT_TRUE(status.ok()) << status;
    LoadModel();
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

  // What greedy decoding (or sampling) says after `prompt` with everything in RAM.
  std::string Expected(DenseMemory memory, const std::string& prompt, int n_tokens,
                       float temperature = 0.0f) {
    model::Sampler sampler({.temperature = temperature, .seed = seed_});
    ReferenceSession session(model_.get(), &memory);
    std::vector<int32_t> ids;
    const auto& spec = model_->tokenizer().spec();
    if (spec.add_bos && spec.bos_id >= 0) ids.push_back(spec.bos_id);
    for (const int32_t id : model_->tokenizer().Encode(prompt).ids) ids.push_back(id);
    std::vector<float> logits;
    EXPECT_TRUE(session.Run({.ids = ids}, &logits).ok());
    std::vector<int32_t> answer;
    while (true) {
      const int32_t next = sampler.Sample(logits);
      if (model_->tokenizer().IsEnd(next)) break;
      answer.push_back(next);
      if (static_cast<int>(answer.size()) == n_tokens) break;
      EXPECT_TRUE(session.Run({.ids = {&answer.back(), 1}}, &logits).ok());
    }
    model::StreamDecoder decoder(model_->tokenizer());
    std::string text;
    for (const int32_t id : answer) text += decoder.Push(id);
    return text += decoder.Finish();
  }

  Answer Ask(const std::string& prompt, int n_tokens,
             std::optional<memory::SearchMode> mode = std::nullopt, float temperature = 0.0f) {
    // Before anything is stored: the model alone.
    memory::Memory* const memory = memory_->settings().has_value() ? memory_.get() : nullptr;
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory);
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    AskOptions options;
    options.raw = true;
    options.max_tokens = n_tokens;
    options.mode = mode;
    options.top_k = 1000;
    options.temperature = temperature;
    options.seed = seed_;
    auto answer = (*answerer)->Ask(prompt, options, nullptr, {});
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *std::move(answer) : Answer();
  }

  uint64_t seed_ = 1;  // of sampling
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

// mem_dtype float32: nothing is rounded, neither what is stored nor what a question adds.
class Float32ReferenceTest : public ReferenceTest {
 protected:
  void SetUp() override {
    ReferenceTest::SetUp();
    SetMemDtype("float32");
  }

  void IngestTwo() {
    Ingest("first", TextOf(100, 1));
    Ingest("second", TextOf(333, 2));
  }
  DenseMemory InRam(EntryType type) {
    DenseMemory memory(device_.get(), type);
    Remember(&memory, TextOf(100, 1));
    Remember(&memory, TextOf(333, 2));
    return memory;
  }

  // Logits at all positions of a prompt that goes to the memory in part, and of two more steps.
  std::vector<float> LogitsOf(model::GrowingMemory* memory) {
    ReferenceSession session(model_.get(), memory);
    std::vector<float> logits;
    const auto ids = model_->tokenizer().Encode(TextOf(150, 5)).ids;
    absl::Status status = session.Run({.ids = ids}, &logits, /*all_logits=*/true);
    EXPECT_TRUE(status.ok()) << status;
    for (const int32_t id : {ids[0], ids[1]}) {
      std::vector<float> step;
      status = session.Run({.ids = {&id, 1}}, &step);
      EXPECT_TRUE(status.ok()) << status;
      logits.insert(logits.end(), step.begin(), step.end());
    }
    return logits;
  }
  std::vector<float> StoredLogits(memory::SearchMode mode, int top_k = 1000) {
    auto searcher = memory::MemorySearcher::Create(device_.get(), memory_->Current(),
                                                   {.mode = mode, .top_k = top_k});
    EXPECT_TRUE(searcher.ok()) << searcher.status();
    ReferenceMemory memory(device_.get(), searcher->get(), model_->memory_config().entry_type);
    return LogitsOf(&memory);
  }
  static double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double largest = 0.0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
    }
    return largest;
  }
  void Reopen(storage::OpenMode mode) {
    memory_.reset();
    auto memory = memory::Memory::Open(folder_ / "memory", {.mode = mode});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
  }
  void ReencodeMemory() {
    memory_.reset();
    memory::ReencodeOptions options;
    options.model_name = "tiny";
    const auto reencoded = memory::Reencode(folder_ / "memory", model_.get(), options);
    ASSERT_TRUE(reencoded.ok()) << reencoded.status();
    Reopen(storage::OpenMode::kWrite);
  }
  // By all of a memory's three ways to attend to everything.
  void ExpectLogitsOfTheSessionInRam() {
    DenseMemory in_ram = InRam(EntryType::kFloat32);
    const std::vector<float> expected = LogitsOf(&in_ram);
    for (const auto mode : {memory::SearchMode::kDense, memory::SearchMode::kExact,
                            memory::SearchMode::kApproximate}) {
      EXPECT_LT(LargestDifference(StoredLogits(mode), expected), kTolerance)
          << static_cast<int>(mode);
    }
  }

  // Sums in another order; what bfloat16 entries change is larger by far.
  static constexpr double kTolerance = 2e-5;
  static constexpr double kRoundingShows = 1e-3;
  static constexpr float kTemperature = 3.0f;
  static constexpr int kPrompts = 40;
};

TEST_F(Float32ReferenceTest, AStoredMemoryGivesTheLogitsOfTheSessionInRam) {
  IngestTwo();
  ASSERT_EQ(memory_->settings()->entry_type, EntryType::kFloat32);
  ExpectLogitsOfTheSessionInRam();
  DenseMemory exact = InRam(EntryType::kFloat32);
  DenseMemory rounded = InRam(EntryType::kBFloat16);
  EXPECT_GT(LargestDifference(LogitsOf(&exact), LogitsOf(&rounded)), kRoundingShows);
  // In another process, which reads only.
  Reopen(storage::OpenMode::kRead);
  ASSERT_EQ(memory_->settings()->format_version(), 2);
  ExpectLogitsOfTheSessionInRam();
}

TEST_F(Float32ReferenceTest, SealedSegmentsAreScoredWithTheStoredKeys) {
  IngestTwo();
  for (const char* spec : {"Scan2", "Flat"}) {
    const auto rebuilt = memory::Rebuild(*device_, memory_.get(), spec, Progress());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    ASSERT_EQ(memory_->Current()->segments.size(), 1u);
    ASSERT_FALSE(memory_->Current()->segments[0]->layers.empty());
    ExpectLogitsOfTheSessionInRam();
  }
  // A few of all keys: "Flat" names the best, and they are scored as the exact scan scores them.
  EXPECT_LT(LargestDifference(StoredLogits(memory::SearchMode::kApproximate, 8),
                              StoredLogits(memory::SearchMode::kExact, 8)),
            kTolerance);
}

// Sampled, where small differences tell sooner: at a high temperature any token may come next.
TEST_F(Float32ReferenceTest, NeitherWhatIsStoredNorTheQuestionIsRounded) {
  int n_different = 0, n_different_alone = 0;
  const DenseMemory none(device_.get(), EntryType::kFloat32);
  const DenseMemory none_rounded(device_.get(), EntryType::kBFloat16);
  for (int seed = 1; seed <= kPrompts; ++seed) {
    seed_ = static_cast<uint64_t>(seed);
    const std::string prompt = TextOf(200, seed);
    const std::string expected = Expected(none, prompt, 40, kTemperature);
    n_different_alone += expected != Expected(none_rounded, prompt, 40, kTemperature) ? 1 : 0;
    EXPECT_EQ(Ask(prompt, 40, std::nullopt, kTemperature).text, expected) << seed;
  }
  EXPECT_GT(n_different_alone, 0);
  IngestTwo();
  const DenseMemory in_ram = InRam(EntryType::kFloat32);
  const DenseMemory rounded = InRam(EntryType::kBFloat16);
  for (int seed = 1; seed <= kPrompts; ++seed) {
    seed_ = static_cast<uint64_t>(seed);
    const std::string prompt = TextOf(150, seed);
    const std::string expected = Expected(in_ram, prompt, 40, kTemperature);
    n_different += expected != Expected(rounded, prompt, 40, kTemperature) ? 1 : 0;
    EXPECT_EQ(Ask(prompt, 40, std::nullopt, kTemperature).text, expected) << seed;
  }
  EXPECT_GT(n_different, 0);
}

TEST_F(Float32ReferenceTest, ReencodingHealsDamagedBlocks) {
  IngestTwo();
  const storage::Slot slot = memory_->Current()->windows[3].slot_begin;
  const auto window = memory_->store().GetWindow(slot);
  ASSERT_TRUE(window.ok()) << window.status();
  storage::Mutation mutation;
  mutation.DeleteWindow(slot);
  mutation.PutWindow(*window);
  ASSERT_TRUE(memory_->store().Commit(std::move(mutation)).ok());
  memory::VerifyOptions options;
  options.repair = true;
  options.model = model_.get();
  auto report = memory::Verify(*device_, memory_.get(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->ok);
  ASSERT_FALSE(report->damaged.empty());
  EXPECT_THAT(report->damaged[0].what, testing::HasSubstr("rebuild --reencode"));

  ReencodeMemory();
  report = memory::Verify(*device_, memory_.get(), {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->ok);
  EXPECT_EQ(memory_->settings()->entry_type, EntryType::kFloat32);
  ExpectLogitsOfTheSessionInRam();
}

// As releases before wrote them: such a memory goes on as it began, until it is encoded again.
TEST_F(Float32ReferenceTest, ABfloat16MemoryOfAFloat32ModelStaysAsItIs) {
  SetMemDtype("bfloat16");
  Ingest("first", TextOf(100, 1));
  SetMemDtype("float32");
  Ingest("second", TextOf(333, 2));
  ASSERT_EQ(memory_->settings()->entry_type, EntryType::kBFloat16);
  const std::string prompt = TextOf(150, 5);
  EXPECT_EQ(Ask(prompt, 90).text, Expected(InRam(EntryType::kBFloat16), prompt, 90));

  ReencodeMemory();
  EXPECT_EQ(memory_->settings()->entry_type, EntryType::kFloat32);
  ExpectLogitsOfTheSessionInRam();
}

TEST_F(Float32ReferenceTest, AModelThatWouldRoundIsRefused) {
  Ingest("first", TextOf(100, 1));
  SetMemDtype("bfloat16");
  const absl::Status status = Answerer::Create(device_.get(), model_.get(), memory_.get()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(status.ToString(), testing::HasSubstr("mem_dtype bfloat16"));
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
