#include "memory/ingest/ingester.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "memory/ingest/ingest_settings.h"
#include "memory/search/searcher.h"
#include "memory/statistics.h"
#include "memory/upkeep/rebuild.h"
#include "tests/compute/guarded_device.h"
#include "tests/memory/tiny_model.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;

// Sentences of random words: the same seed is the same text.
std::string RandomText(size_t size_bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < size_bytes) {
    for (uint32_t words = 3 + random() % 9; words-- > 0;) {
      for (uint32_t letters = 1 + random() % 8; letters-- > 0;) {
        text += static_cast<char>('a' + random() % 26);
      }
      text += words == 0 ? "." : " ";
    }
    text += random() % 6 == 0 ? "\n\n" : " ";
  }
  return text;
}

// A folder of its own with a tiny model and a memory in it. "guarded" is a device with memory of
// its own, as a GPU is: windows are encoded while the next ones are read.
class IngesterTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '-');
    folder_ = fs::path(testing::TempDir()) / StrCat("ingester-", name);
    fs::remove_all(folder_);
    ASSERT_TRUE(WriteTinyModel(folder_ / "model", 1).ok());
    device_ = MakeDevice(GetParam());
    auto model = LoadTinyModel(device_.get(), folder_ / "model");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    Reopen();
  }
  static std::unique_ptr<compute::Device> MakeDevice(const std::string& name) {
    if (name == "guarded") return std::make_unique<compute::GuardedDevice>(2);
    return *compute::Device::Create("cpu", 2);
  }
  void TearDown() override {
    memory_.reset();
    fs::remove_all(folder_);
  }
  void Reopen() {
    memory_.reset();
    auto memory = Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kCreate});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
  }
  IngestOptions Options() {
    IngestOptions options;
    options.model_name = (folder_ / "model").string();
    options.window = 64;
    options.overlap = 16;
    options.encode_batch_tokens = 256;
    options.on_document = [this](const IngestedDocument& document) {
      results_.push_back(document);
    };
    return options;
  }
  // Ingests texts by source in one go; returns their results.
  std::vector<IngestedDocument> Ingest(const std::map<std::string, std::string>& texts,
                                       const std::string& collection = "default") {
    results_.clear();
    auto ingester = Ingester::Create(memory_.get(), model_.get(), Options());
    EXPECT_TRUE(ingester.ok()) << ingester.status();
    if (!ingester.ok()) return {};
    for (const auto& [source, text] : texts) {
      const auto document = documents::MakeTextDocument("title of " + source, source, text);
      document->replaceable = true;
      const absl::Status status = (*ingester)->Add(*document, collection);
      EXPECT_TRUE(status.ok()) << status;
    }
    const absl::Status status = (*ingester)->Finish();
    EXPECT_TRUE(status.ok()) << status;
    return results_;
  }
  std::string StoredText(const std::string& id) {
    const auto view = memory_->Current();
    const auto document = FindDocument(*view, id);
    EXPECT_TRUE(document.ok()) << document.status();
    std::string text;
    if (!document.ok()) return text;
    const absl::Status status =
        ReadText(*memory_->Current(), **document, [&](std::string_view piece) {
          text += piece;
          return absl::OkStatus();
        });
    EXPECT_TRUE(status.ok()) << status;
    return text;
  }
  std::set<std::string> CompleteDocuments() {
    std::set<std::string> ids;
    EXPECT_TRUE(memory_->store()
                    .ForEachDocument([&](const storage::DocumentRecord& record) {
                      if (record.complete) ids.insert(record.id);
                      return absl::OkStatus();
                    })
                    .ok());
    return ids;
  }

  fs::path folder_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<Memory> memory_;
  std::vector<IngestedDocument> results_;
};

TEST_P(IngesterTest, StoresTheTextByteForByte) {
  const std::string text = RandomText(3000, 1) + "\xf0\x9f\x98\x80 na\xc3\xafve \xe2\x82\xac\n";
  const auto results = Ingest({{"a", text}});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].status, IngestStatus::kAdded);
  EXPECT_EQ(results[0].windows, results[0].encoded_windows);
  EXPECT_EQ(results[0].id, Sha256Hex(text).substr(0, 32));
  EXPECT_EQ(StoredText(results[0].id), text);
  Reopen();
  EXPECT_EQ(StoredText(results[0].id), text);
}

TEST_P(IngesterTest, SameContentAgainIsUnchanged) {
  const std::string text = RandomText(2000, 2);
  Ingest({{"a", text}});
  const auto again = Ingest({{"a", text}});
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].status, IngestStatus::kUnchanged);
  EXPECT_EQ(again[0].encoded_windows, 0u);
  // Also from another source, and in another process.
  Reopen();
  const auto elsewhere = Ingest({{"b", text}}, "second");
  EXPECT_EQ(elsewhere[0].status, IngestStatus::kUnchanged);
  const auto view = memory_->Current();
  ASSERT_EQ(view->documents.size(), 1u);
  EXPECT_THAT(view->documents[0].collections(), testing::ElementsAre("default", "second"));
}

TEST_P(IngesterTest, SameContentTwiceInOneRunIsStoredOnce) {
  const std::string text = RandomText(500, 3);
  const auto results = Ingest({{"a", text}, {"b", text}});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].status, IngestStatus::kAdded);
  EXPECT_EQ(results[1].status, IngestStatus::kUnchanged);
  EXPECT_EQ(memory_->Current()->documents.size(), 1u);
}

TEST_P(IngesterTest, EditedDocumentEncodesOnlyChangedWindows) {
  std::string text = RandomText(12000, 4);
  const auto first = Ingest({{"a", text}});
  text.insert(6000, "Something new in the middle of it all. ");
  const auto second = Ingest({{"a", text}});
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].status, IngestStatus::kReplaced);
  EXPECT_GT(second[0].encoded_windows, 0u);
  EXPECT_LE(second[0].encoded_windows, second[0].windows / 4);
  EXPECT_EQ(StoredText(second[0].id), text);
  const auto view = memory_->Current();
  ASSERT_EQ(view->documents.size(), 1u);
  EXPECT_NE(view->documents[0].id, first[0].id);
  // The old version's windows are gone, and slots of kept ones stayed.
  EXPECT_EQ(view->windows.size(), second[0].windows);
}

TEST_P(IngesterTest, BlocksAreWhatTheModelEncodes) {
  const std::string text = RandomText(700, 5);
  Ingest({{"a", text}});
  const auto view = memory_->Current();
  for (const LiveWindow& live : view->windows) {
    const auto window = memory_->store().GetWindow(live.slot_begin);
    ASSERT_TRUE(window.ok()) << window.status();
    const model::WindowTokens tokens{window->context_ids, window->ids};
    const auto encoded = model_->Encode({&tokens, 1});
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    for (int layer = 0; layer < 2; ++layer) {
      const auto block = memory_->store().GetBlock(live.slot_begin, layer);
      ASSERT_TRUE(block.ok()) << block.status();
      for (int64_t t = 0; t < block->n_tokens; ++t) {
        for (int64_t h = 0; h < kTinyKvHeads; ++h) {
          for (int64_t i = 0; i < kTinyHeadDim; ++i) {
            const int64_t stored = (h * block->n_tokens + t) * kTinyHeadDim + i;
            const int64_t made = (t * kTinyKvHeads + h) * kTinyHeadDim + i;
            // The same windows in other batches: the last bit of a product may differ.
            ASSERT_NEAR(static_cast<float>(block->keys[stored]),
                        static_cast<float>((*encoded)[0].keys[layer][made]), 2e-2);
            ASSERT_NEAR(static_cast<float>(block->values[stored]),
                        static_cast<float>((*encoded)[0].values[layer][made]), 2e-2);
          }
        }
      }
    }
  }
}

TEST_P(IngesterTest, InterruptedIngestGoesOnWhereItWas) {
  const std::string text = RandomText(8000, 6);
  std::atomic<bool> cancelled{false};
  IngestOptions options = Options();
  int commits = 0;
  options.progress = Progress(
      [&](const ProgressUpdate&) {
        if (++commits == 10) cancelled = true;
      },
      &cancelled);
  {
    auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok()) << ingester.status();
    const auto document = documents::MakeTextDocument("", "a", text);
    document->replaceable = true;
    EXPECT_TRUE(absl::IsCancelled((*ingester)->Add(*document, "default")));
  }
  Reopen();
  EXPECT_TRUE(memory_->Current()->documents.empty());
  const auto results = Ingest({{"a", text}});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].status, IngestStatus::kAdded);
  EXPECT_LT(results[0].encoded_windows, results[0].windows);
  EXPECT_GT(results[0].encoded_windows, 0u);
  EXPECT_EQ(StoredText(results[0].id), text);
}

TEST_P(IngesterTest, WhatIsReportedIsStoredAndWhatIsStoredIsReported) {
  // Commits run beside the encoding: some are under way whenever the ingest is cancelled.
  for (const int n_updates : {1, 2, 5, 1000}) {
    SCOPED_TRACE(n_updates);
    memory_.reset();
    fs::remove_all(folder_ / "memory");
    Reopen();
    std::atomic<bool> cancelled{false};
    std::set<std::string> reported;
    int updates = 0;
    IngestOptions options = Options();
    options.progress = Progress(
        [&](const ProgressUpdate&) {
          if (++updates == n_updates) cancelled = true;
        },
        &cancelled);
    options.on_document = [&](const IngestedDocument& document) {
      EXPECT_TRUE(CompleteDocuments().contains(document.id)) << document.source;
      reported.insert(document.id);
    };
    absl::Status status;
    {
      auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
      ASSERT_TRUE(ingester.ok()) << ingester.status();
      for (uint32_t i = 0; i < 20 && status.ok(); ++i) {
        const std::string source = StrCat("source ", i);
        const auto document = documents::MakeTextDocument("", source, RandomText(200 + 40 * i, i));
        document->replaceable = true;
        status = (*ingester)->Add(*document, "default");
      }
      if (status.ok()) status = (*ingester)->Finish();
    }
    EXPECT_EQ(absl::IsCancelled(status), n_updates < 1000) << status;
    EXPECT_EQ(CompleteDocuments(), reported);
    if (n_updates == 1000) {
      EXPECT_EQ(reported.size(), 20u);
    }
  }
}

TEST_P(IngesterTest, LeftoversOfAnInterruptedVersionGo) {
  const std::string text = RandomText(8000, 7);
  std::atomic<bool> cancelled{false};
  IngestOptions options = Options();
  int commits = 0;
  options.progress = Progress(
      [&](const ProgressUpdate&) {
        if (++commits == 8) cancelled = true;
      },
      &cancelled);
  {
    auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok());
    const auto document = documents::MakeTextDocument("", "a", text);
    document->replaceable = true;
    EXPECT_TRUE(absl::IsCancelled((*ingester)->Add(*document, "default")));
  }
  const auto results = Ingest({{"a", text + " And one more sentence."}});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_LT(results[0].encoded_windows, results[0].windows);
  int64_t documents = 0;
  ASSERT_TRUE(memory_->store()
                  .ForEachDocument([&](const storage::DocumentRecord&) {
                    ++documents;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(documents, 1);
}

TEST_P(IngesterTest, WhatAnAbandonedIngestHasLeftIsToldAndARebuildDropsIt) {
  const std::string kept = RandomText(900, 8);
  ASSERT_EQ(Ingest({{"kept", kept}}).size(), 1u);
  const std::string text = RandomText(8000, 7);
  std::atomic<bool> cancelled{false};
  IngestOptions options = Options();
  int commits = 0;
  options.progress = Progress(
      [&](const ProgressUpdate&) {
        if (++commits == 8) cancelled = true;
      },
      &cancelled);
  {
    auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok());
    const auto document = documents::MakeTextDocument("", "-", text);  // nothing takes its place
    EXPECT_TRUE(absl::IsCancelled((*ingester)->Add(*document, "default")));
  }
  Reopen();
  const auto stats = [&] {
    absl::StatusOr<Stats> stats = ComputeStats(*memory_);
    EXPECT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->slots, stats->tokens + stats->unfinished_tokens + stats->deleted_slots);
    return *stats;
  };
  EXPECT_EQ(stats().unfinished_documents, 1);
  EXPECT_GT(stats().unfinished_tokens, 0u);
  // An ingest of something else may not know what it was for.
  const std::string other = RandomText(700, 9);
  ASSERT_EQ(Ingest({{"other", other}}).size(), 1u);
  EXPECT_EQ(stats().unfinished_documents, 1);
  auto device = compute::Device::Create("cpu", 1);
  ASSERT_TRUE(device.ok());
  const auto rebuilt = Rebuild(**device, memory_.get(), "", Progress());
  ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
  EXPECT_EQ(stats().unfinished_documents, 0);
  EXPECT_EQ(stats().unfinished_tokens, 0u);
  EXPECT_EQ(stats().documents, 2);
  std::set<std::string> texts;
  for (const auto& document : memory_->Current()->documents) texts.insert(StoredText(document.id));
  EXPECT_EQ(texts, (std::set<std::string>{kept, other}));
}

TEST_P(IngesterTest, CollectionsAreNamedByOneLineOfText) {
  auto ingester = Ingester::Create(memory_.get(), model_.get(), Options());
  ASSERT_TRUE(ingester.ok());
  const auto document = documents::MakeTextDocument("", "a", "Some words.");
  for (const std::string& name : {std::string(), std::string("a\nb"), std::string("a\0b", 3)}) {
    EXPECT_TRUE(absl::IsInvalidArgument((*ingester)->Add(*document, name))) << name;
    document->collection = name;  // the document's own, as of a record
    if (!name.empty()) {
      EXPECT_TRUE(absl::IsInvalidArgument((*ingester)->Add(*document, "default"))) << name;
    }
    document->collection.clear();
  }
  ASSERT_TRUE((*ingester)->Add(*document, "Zoë's letters").ok());
  ASSERT_TRUE((*ingester)->Finish().ok());
  ASSERT_EQ(memory_->Current()->documents.size(), 1u);
  EXPECT_TRUE(memory_->Current()->documents[0].IsIn("Zoë's letters"));
}

// A document whose text is another one when it is read for the second time.
class ChangingDocument : public documents::TextDocument {
 public:
  absl::Status Read(size_t, std::string* out) override {
    if (done_) return absl::OkStatus();
    done_ = true;
    *out += RandomText(n_rewinds_ > 1 ? 900 : 1000, 8);
    return absl::OkStatus();
  }
  absl::Status Rewind() override {
    ++n_rewinds_;
    done_ = false;
    return absl::OkStatus();
  }

 private:
  int n_rewinds_ = 0;
  bool done_ = false;
};

TEST_P(IngesterTest, DocumentThatChangesWhileItIsReadFailsAndLeavesNothing) {
  auto ingester = Ingester::Create(memory_.get(), model_.get(), Options());
  ASSERT_TRUE(ingester.ok());
  ChangingDocument changing;
  changing.source = "changing";
  ASSERT_TRUE((*ingester)->Add(changing, "default").ok());
  const auto sound = documents::MakeTextDocument("", "sound", RandomText(500, 9));
  ASSERT_TRUE((*ingester)->Add(*sound, "default").ok());
  ASSERT_TRUE((*ingester)->Finish().ok());
  ASSERT_EQ(results_.size(), 2u);
  EXPECT_EQ(results_[0].status, IngestStatus::kFailed);
  EXPECT_THAT(results_[0].error, testing::HasSubstr("changed while it was read"));
  EXPECT_EQ(results_[1].status, IngestStatus::kAdded);
  EXPECT_EQ(memory_->Current()->documents.size(), 1u);
}

TEST_P(IngesterTest, EmptyDocumentFailsAndOthersGoOn) {
  const auto results = Ingest({{"a", ""}, {"b", "Something."}});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].status, IngestStatus::kFailed);
  EXPECT_THAT(results[0].error, testing::HasSubstr("empty"));
  EXPECT_EQ(results[1].status, IngestStatus::kAdded);
}

TEST_P(IngesterTest, AnotherModelIsRefusedNamingBothFingerprints) {
  Ingest({{"a", "Something."}});
  ASSERT_TRUE(WriteTinyModel(folder_ / "other", 2).ok());
  auto other = LoadTinyModel(device_.get(), folder_ / "other");
  ASSERT_TRUE(other.ok());
  const auto refused = Ingester::Create(memory_.get(), other->get(), Options());
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr(model_->fingerprint()));
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr((*other)->fingerprint()));
}

TEST_P(IngesterTest, ContradictingOptionIsRefused) {
  Ingest({{"a", "Something."}});
  IngestOptions options = Options();
  options.window = 128;
  EXPECT_EQ(Ingester::Create(memory_.get(), model_.get(), options).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_P(IngesterTest, DeletedDocumentIsGoneForSearchAndWords) {
  const auto results = Ingest({{"a", RandomText(2000, 10)}, {"b", RandomText(2000, 11)}});
  const auto view = memory_->Current();
  const auto doomed = FindDocument(*view, results[0].id);
  ASSERT_TRUE(doomed.ok());
  ASSERT_TRUE(memory_->DeleteDocuments({(*doomed)->number}).ok());
  EXPECT_EQ(memory_->Current()->documents.size(), 1u);
  auto searcher = MemorySearcher::Create(device_.get(), memory_->Current(), {});
  ASSERT_TRUE(searcher.ok());
  EXPECT_EQ((*searcher)->n_tokens(), results[1].tokens);
  // The pinned older view still names both.
  EXPECT_EQ(view->documents.size(), 2u);
}

TEST_P(IngesterTest, FolderWithOtherFilesIsNotTurnedIntoAMemory) {
  fs::create_directories(folder_ / "photos");
  ASSERT_TRUE(WriteFileAtomic(folder_ / "photos" / "cat.jpg", "x").ok());
  const auto refused = Memory::Open(folder_ / "photos", {.mode = storage::OpenMode::kCreate});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(fs::exists(folder_ / "photos" / "cat.jpg"));
}

TEST_P(IngesterTest, ReaderFollowsTheWriter) {
  Ingest({{"a", RandomText(600, 12)}});
  auto reader = Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kRead});
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->Current()->documents.size(), 1u);
  Ingest({{"b", RandomText(600, 13)}});
  const auto changed = (*reader)->Refresh();
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_TRUE(*changed);
  EXPECT_EQ((*reader)->Current()->documents.size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Devices, IngesterTest, testing::Values("cpu", "guarded"),
                         [](const auto& info) { return info.param; });

// Every block of a memory, by slot and memory layer.
std::map<std::pair<storage::Slot, int>, std::vector<float>> AllBlocks(Memory& memory) {
  std::map<std::pair<storage::Slot, int>, std::vector<float>> blocks;
  for (const LiveWindow& live : memory.Current()->windows) {
    for (int layer = 0; layer < 2; ++layer) {
      const auto block = memory.store().GetBlock(live.slot_begin, layer);
      EXPECT_TRUE(block.ok()) << block.status();
      if (!block.ok()) continue;
      std::vector<float>& numbers = blocks[{live.slot_begin, layer}];
      for (const EntryVector* entries : {&block->keys, &block->values}) {
        for (size_t i = 0; i < entries->size(); ++i) numbers.push_back((*entries)[i]);
      }
    }
  }
  return blocks;
}

using IngestInBackgroundTest = IngesterTest;

TEST_P(IngestInBackgroundTest, StoresTheSameBits) {
  std::map<std::string, std::string> texts;
  for (uint32_t i = 0; i < 12; ++i) texts[StrCat("source ", i)] = RandomText(100 + 300 * i, i);
  Ingest(texts);
  const auto in_background = AllBlocks(*memory_);
  EXPECT_GT(in_background.size(), 100u);
  memory_.reset();
  fs::remove_all(folder_ / "memory");
  Reopen();
  device_ = MakeDevice("cpu");
  device_->set_exact(true);
  auto model = LoadTinyModel(device_.get(), folder_ / "model");
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  Ingest(texts);
  EXPECT_EQ(AllBlocks(*memory_), in_background);
}

// A device with memory of its own that breaks after so many copies to the host.
class BreakingDevice final : public compute::cpu::CpuDevice {
 public:
  BreakingDevice() : CpuDevice(2) {}
  bool is_host_memory() const override { return false; }
  absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) override {
    if (n_left_-- <= 0) return absl::InternalError("the device is lost");
    return CpuDevice::CopyToHost(device, size_bytes, host);
  }
  void set_copies_left(int n) { n_left_ = n; }

 private:
  std::atomic<int> n_left_{0};
};

TEST_P(IngestInBackgroundTest, NothingFollowsWhatCouldNotBeEncoded) {
  auto breaking = std::make_unique<BreakingDevice>();
  BreakingDevice& device = *breaking;
  model_.reset();
  device_ = std::move(breaking);
  auto model = LoadTinyModel(device_.get(), folder_ / "model");
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  for (const int n_copies : {0, 7, 20, 50}) {
    SCOPED_TRACE(n_copies);
    memory_.reset();
    fs::remove_all(folder_ / "memory");
    Reopen();
    device.set_copies_left(n_copies);
    std::set<std::string> reported;
    IngestOptions options = Options();
    options.on_document = [&](const IngestedDocument& document) { reported.insert(document.id); };
    std::map<std::string, std::string> texts;
    for (uint32_t i = 0; i < 30; ++i) texts[StrCat("source ", i)] = RandomText(200 + 40 * i, i);
    {
      auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
      ASSERT_TRUE(ingester.ok()) << ingester.status();
      // Also one who does not listen gets nothing stored after the error.
      int n_errors = 0;
      for (const auto& [source, text] : texts) {
        const auto document = documents::MakeTextDocument("", source, text);
        document->replaceable = true;
        const absl::Status status = (*ingester)->Add(*document, "default");
        if (status.ok()) continue;
        ++n_errors;
        EXPECT_THAT(std::string(status.message()), testing::HasSubstr("the device is lost"));
      }
      device.set_copies_left(1 << 30);
      EXPECT_THAT(std::string((*ingester)->Finish().message()),
                  testing::HasSubstr("the device is lost"));
      EXPECT_GT(n_errors, 0);
      EXPECT_EQ(CompleteDocuments(), reported);
      EXPECT_LT(reported.size(), texts.size());
    }
    Reopen();
    EXPECT_EQ(CompleteDocuments(), reported);
    for (const IngestedDocument& document : Ingest(texts)) {
      EXPECT_EQ(document.status,
                reported.contains(document.id) ? IngestStatus::kUnchanged : IngestStatus::kAdded);
      EXPECT_EQ(StoredText(document.id), texts[document.source]);
    }
  }
}

TEST_P(IngestInBackgroundTest, WordsAreFoundWhileItGoesOn) {
  const auto search = [this](std::string_view word) {
    const auto hits = memory_->text_index()->Search(word, 100, [](uint64_t) { return true; });
    EXPECT_TRUE(hits.ok()) << hits.status();
    std::vector<std::pair<uint64_t, double>> found;
    for (const index::PassageHit& hit : *hits) found.emplace_back(hit.slot_begin, hit.score);
    return found;
  };
  std::map<std::string, std::string> texts;
  for (uint32_t i = 0; i < 60; ++i) {
    texts[StrCat("source ", i)] = StrCat(RandomText(1500, i), "zebra", i % 7, " crossing.");
  }
  {
    auto ingester = Ingester::Create(memory_.get(), model_.get(), Options());
    ASSERT_TRUE(ingester.ok()) << ingester.status();
    for (const auto& [source, text] : texts) {
      const auto document = documents::MakeTextDocument("", source, text);
      ASSERT_TRUE((*ingester)->Add(*document, "default").ok());
      // Never ahead of what is stored.
      const auto next_slot = memory_->text_index()->NextSlot();
      ASSERT_TRUE(next_slot.ok()) << next_slot.status();
      EXPECT_LE(*next_slot, memory_->store().ReadCounters()->next_slot);
    }
    // 256 windows and more are there.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (*memory_->text_index()->NextSlot() == 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_GT(*memory_->text_index()->NextSlot(), 0u);
    EXPECT_THAT(search("zebra3"), testing::Not(testing::IsEmpty()));
    // It ends here, without Finish.
  }
  Reopen();
  const auto of_opening = search("zebra3");
  Ingest(texts);
  EXPECT_EQ(*memory_->text_index()->NextSlot(), memory_->store().ReadCounters()->next_slot);
  EXPECT_TRUE(memory_->text_index()->Verify().ok());
  const auto filled = search("zebra3 crossing");
  EXPECT_GE(filled.size(), of_opening.size());
  EXPECT_GE(search("zebra3").size(), 8u);
  // What the whole store gives in one go.
  ASSERT_TRUE(memory_->RebuildTextIndex(Progress()).ok());
  EXPECT_EQ(search("zebra3 crossing"), filled);
}

TEST_P(IngestInBackgroundTest, LittleRoomOnADeviceMakesSmallBatches) {
  storage::StoreSettings settings;
  settings.encoding = "window-local";
  compute::GuardedDevice device(1);
  const int unknown = EncodeBatchTokens(settings, model_->config(), device);
  device.set_memory({.free_bytes = size_t{64} << 30, .total_bytes = size_t{80} << 30});
  EXPECT_EQ(EncodeBatchTokens(settings, model_->config(), device), unknown);
  device.set_memory({.free_bytes = size_t{1} << 20, .total_bytes = size_t{80} << 30});
  EXPECT_LT(EncodeBatchTokens(settings, model_->config(), device), unknown);
  EXPECT_GE(EncodeBatchTokens(settings, model_->config(), device), 4096);
}

INSTANTIATE_TEST_SUITE_P(Devices, IngestInBackgroundTest, testing::Values("guarded"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::memory
