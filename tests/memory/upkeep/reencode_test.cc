#include "memory/upkeep/reencode.h"

#include <map>

#include "base/file.h"
#include "documents/text_document.h"
#include "memory/ingest/ingester.h"
#include "memory/upkeep/verify.h"
#include "memory/versions.h"
#include "tests/memory/synthetic_memory.h"
#include "tests/memory/tiny_model.h"

namespace fovea::memory {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// Words, with characters of several bytes, so that windows of a byte-level model may end in one.
std::string Text(uint32_t seed, int n_words) {
  static const char* kWords[] = {"tree", "größer", "naïve", "日本", "green", "of", "a", "house"};
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < n_words; ++i) {
    text += kWords[random() % 8];
    text += i % 9 == 8 ? ".\n" : " ";
  }
  return text;
}

class ReencodeTest : public testing::Test {
 protected:
  void SetUp() override {
    for (uint32_t seed : {1, 2}) {
      ASSERT_OK(WriteTinyModel(folder_ / StrCat("model", seed).c_str(), seed));
    }
    LoadModel(1, &first_);
    LoadModel(2, &second_);
    ASSERT_OK_AND_ASSIGN(auto memory, OpenMemory(Folder(), storage::OpenMode::kCreate));
    IngestOptions options;
    options.model_name = "model1";
    options.window = window();
    options.overlap = 8;
    options.any_collection_name = true;
    ASSERT_OK_AND_ASSIGN(auto ingester, Ingester::Create(memory.get(), first_.get(), options));
    for (uint32_t i = 0; i < kDocuments; ++i) {
      auto document = documents::MakeTextDocument(StrCat("Title ", i), StrCat("/books/", i, ".txt"),
                                                  Text(i, 60 + static_cast<int>(i)));
      // A name that earlier releases took.
      ASSERT_OK(ingester->Add(*document, i == 0 ? "the\nfirst" : "default"));
      if (i == 0) ASSERT_OK(ingester->Add(*document, "second"));
    }
    ASSERT_OK(ingester->Finish());
    // An age of its own for each.
    Mutation mutation;
    for (DocumentRecord document : memory->Current()->documents) {
      document.ingested_unix_s = 1600000000 + static_cast<int64_t>(document.number);
      mutation.PutDocument(document);
      before_[document.id] = document;
    }
    ASSERT_OK(memory->store().Commit(std::move(mutation)));
    ASSERT_THAT(before_, SizeIs(kDocuments));
  }
  virtual int window() const { return 64; }
  void LoadModel(int number, std::unique_ptr<model::Transformer>* model) {
    auto loaded = LoadTinyModel(device_.get(), folder_ / StrCat("model", number).c_str());
    ASSERT_OK(loaded.status());
    *model = *std::move(loaded);
  }
  std::filesystem::path Folder() const { return folder_ / "m"; }
  absl::StatusOr<ReencodeResult> Run(model::Transformer* model,
                                     const Progress& progress = Progress()) {
    ReencodeOptions options;
    options.model_name = "model2";
    options.progress = progress;
    return Reencode(Folder(), model, options);
  }
  std::string Current() const {
    const auto version = Memory::CurrentVersion(Folder());
    EXPECT_OK(version.status());
    return version.ok() ? *version : "";
  }
  // Everything but the numbers as it was before, encoded by `model`.
  void ExpectReencoded(const model::Transformer& model) {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kRead));
    EXPECT_EQ(memory->settings()->fingerprint, model.fingerprint());
    EXPECT_EQ(memory->settings()->model, "model2");
    EXPECT_EQ(memory->settings()->window, 64);
    EXPECT_EQ(memory->settings()->overlap, 8);
    const auto view = memory->Current();
    ASSERT_THAT(view->documents, SizeIs(before_.size()));
    for (const DocumentRecord& document : view->documents) {
      ASSERT_TRUE(before_.contains(document.id)) << document.id;
      const DocumentRecord& old = before_[document.id];
      EXPECT_EQ(document.sources, old.sources);
      EXPECT_EQ(document.ingested_unix_s, old.ingested_unix_s);
      EXPECT_EQ(document.size_bytes, old.size_bytes);
    }
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, memory.get(), {}));
    EXPECT_TRUE(report.ok);
    EXPECT_EQ(report.documents, static_cast<int64_t>(before_.size()));
  }

  static constexpr uint32_t kDocuments = 6;
  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_ = TestDevice();
  std::unique_ptr<model::Transformer> first_, second_;
  std::map<std::string, DocumentRecord> before_;
};

TEST_F(ReencodeTest, TextsAndTheirRecordsMoveToTheNewModel) {
  ASSERT_OK_AND_ASSIGN(const ReencodeResult result, Run(second_.get()));
  EXPECT_EQ(result.documents, kDocuments);
  EXPECT_GT(result.tokens, 0u);
  EXPECT_EQ(Current(), "0002");
  EXPECT_THAT(FilesIn(Folder()), ElementsAre("0002", "CURRENT"));
  ExpectReencoded(*second_);
}

TEST_F(ReencodeTest, CanBeDoneAgain) {
  ASSERT_OK(Run(second_.get()).status());
  ASSERT_OK(Run(first_.get()).status());
  EXPECT_EQ(Current(), "0003");
  ExpectReencoded(*first_);
}

TEST_F(ReencodeTest, AnOpenReaderFollows) {
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), storage::OpenMode::kRead));
  ASSERT_OK(Run(second_.get()).status());
  ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_EQ(reader->settings()->fingerprint, second_->fingerprint());
  EXPECT_THAT(reader->Current()->documents, SizeIs(kDocuments));
}

TEST_F(ReencodeTest, RefusesWhileAnotherWrites) {
  ASSERT_OK_AND_ASSIGN(const auto writer, OpenMemory(Folder(), storage::OpenMode::kWrite));
  const absl::Status status = Run(second_.get()).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(Current(), "0001");
}

TEST_F(ReencodeTest, InterruptedItServesTheOldVersionAndGoesOn) {
  CancelAt cancel("encode", 1);
  const absl::Status status = Run(second_.get(), cancel.progress()).status();
  ASSERT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(Current(), "0001");
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kRead));
    EXPECT_EQ(memory->settings()->fingerprint, first_->fingerprint());
    EXPECT_THAT(memory->Current()->documents, SizeIs(kDocuments));
  }
  ASSERT_OK(Run(second_.get()).status());
  ExpectReencoded(*second_);
}

TEST_F(ReencodeTest, WhatWasDeletedMeanwhileStaysDeleted) {
  CancelAt cancel("index words", 1);  // everything is encoded, nothing swapped
  ASSERT_TRUE(absl::IsCancelled(Run(second_.get(), cancel.progress()).status()));
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kWrite));
    const DocumentRecord deleted = memory->Current()->documents[2];
    ASSERT_OK(memory->DeleteDocuments({deleted.number}));
    before_.erase(deleted.id);
  }
  ASSERT_OK_AND_ASSIGN(const ReencodeResult result, Run(second_.get()));
  EXPECT_EQ(result.documents, kDocuments - 1);
  ExpectReencoded(*second_);
}

TEST_F(ReencodeTest, AnInterruptedTryWithAnotherModelIsDropped) {
  CancelAt cancel("index words", 1);
  ASSERT_TRUE(absl::IsCancelled(Run(first_.get(), cancel.progress()).status()));
  ASSERT_OK(Run(second_.get()).status());
  ExpectReencoded(*second_);
}

TEST_F(ReencodeTest, ALostTextIsNamedAndNothingIsSwapped) {
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kWrite));
    Mutation mutation;
    mutation.DeleteWindow(memory->Current()->windows[1].slot_begin);
    ASSERT_OK(memory->store().Commit(std::move(mutation)));
  }
  const absl::Status status = Run(second_.get()).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/books/0.txt"));
  EXPECT_EQ(Current(), "0001");
}

TEST_F(ReencodeTest, WhatACrashAfterTheSwapLeftIsRemovedTheNextTime) {
  ASSERT_OK(Run(second_.get()).status());
  ASSERT_OK(CreateDirectories(Folder() / "0001" / "store"));
  ASSERT_OK(Run(first_.get()).status());
  EXPECT_THAT(FilesIn(Folder()), ElementsAre("0003", "CURRENT"));
}

// What is stored in the old version after an interrupted call, the new one never had.
TEST_F(ReencodeTest, WhereCurrentIsLostAnUnfinishedVersionDoesNotTakeItsPlace) {
  for (const char* stage : {"encode", "index words"}) {
    SCOPED_TRACE(stage);
    CancelAt cancel(stage, 1);
    const absl::Status interrupted = Run(second_.get(), cancel.progress()).status();
    ASSERT_TRUE(absl::IsCancelled(interrupted)) << interrupted;
    EXPECT_THAT(FilesIn(Folder()), ElementsAre("0001", "0002", "CURRENT"));
    {
      ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kWrite));
      ASSERT_OK(AddDocument(memory->store(), {.n_windows = 1, .with_blocks = false}).status());
    }
    std::filesystem::remove(Folder() / "CURRENT");
    ASSERT_OK_AND_ASSIGN(const std::string restored, RestoreCurrent(Folder()));
    EXPECT_THAT(restored, HasSubstr("now it names 0001"));
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kWrite));
    const DocumentRecord added = memory->Current()->documents.back();
    EXPECT_THAT(memory->Current()->documents, SizeIs(kDocuments + 1));
    ASSERT_OK(memory->DeleteDocuments({added.number}));
    ASSERT_OK(RemoveVersion(Folder(), "0002"));
  }
  ASSERT_OK(Run(second_.get()).status());
  ExpectReencoded(*second_);
}

TEST_F(ReencodeTest, WhereCurrentIsLostTheOldVersionDoesNotComeBack) {
  // The removal of the old version was interrupted.
  std::filesystem::copy(Folder() / "0001", folder_ / "old",
                        std::filesystem::copy_options::recursive);
  ASSERT_OK(Run(second_.get()).status());
  std::filesystem::rename(folder_ / "old", Folder() / "0001");
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), storage::OpenMode::kWrite));
    const DocumentRecord deleted = memory->Current()->documents[2];
    ASSERT_OK(memory->DeleteDocuments({deleted.number}));
    before_.erase(deleted.id);
  }
  for (const char* content : {"", "0001\n", "0003\n"}) {
    ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", content));
    ASSERT_OK_AND_ASSIGN(const std::string restored, RestoreCurrent(Folder()));
    EXPECT_THAT(restored, HasSubstr("now it names 0002"));
    ExpectReencoded(*second_);
  }
  // An unfinished third one changes nothing about that.
  CancelAt cancel("encode", 1);
  ASSERT_TRUE(absl::IsCancelled(Run(first_.get(), cancel.progress()).status()));
  EXPECT_THAT(FilesIn(Folder()), ElementsAre("0002", "0003", "CURRENT"));
  std::filesystem::remove(Folder() / "CURRENT");
  ASSERT_OK_AND_ASSIGN(const std::string restored, RestoreCurrent(Folder()));
  EXPECT_THAT(restored, HasSubstr("now it names 0002"));
  ExpectReencoded(*second_);
}

// Windows whose blocks lie in files of their own, which a reader opens when it needs them.
class ReencodeLargeWindowsTest : public ReencodeTest {
 protected:
  int window() const override { return 256; }
};

TEST_F(ReencodeLargeWindowsTest, AReaderThatVerifiesMeanwhileFindsNoDamage) {
  for (const char* stage : {"verify records", "verify texts"}) {
    SCOPED_TRACE(stage);
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), storage::OpenMode::kRead));
    int n_encoded = 0;
    VerifyOptions options;
    options.progress = Progress(
        [&](const ProgressUpdate& update) {
          if (update.stage == stage && n_encoded++ == 0) ASSERT_OK(Run(second_.get()).status());
        },
        nullptr);
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), options));
    EXPECT_GE(n_encoded, 1);
    EXPECT_TRUE(report.ok);
    for (const VerifyFinding& finding : report.damaged) {
      ADD_FAILURE() << finding.kind << ": " << finding.what;
    }
    EXPECT_EQ(report.documents, static_cast<int64_t>(kDocuments));
  }
}

}  // namespace
}  // namespace fovea::memory
