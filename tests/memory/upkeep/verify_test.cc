#include "memory/upkeep/verify.h"

#include "base/file.h"
#include "memory/block_layout.h"
#include "memory/segment_files.h"
#include "memory/segments/sealer.h"
#include "memory/segments/segment_builder.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/salvage.h"
#include "tests/memory/synthetic_memory.h"
#include "tests/memory/tiny_model.h"

namespace fovea::memory {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

auto Finding(const std::string& kind, const std::string& words) {
  return AllOf(Field("kind", &VerifyFinding::kind, kind),
               Field("what", &VerifyFinding::what, HasSubstr(words)));
}

class VerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    auto memory = CreateSyntheticMemory(folder_ / "m", "IVF4,Flat");
    ASSERT_OK(memory.status());
    memory_ = *std::move(memory);
    for (DocumentRecord& document : documents_) {
      auto added = AddDocument(store(), {.n_slots = kSealSlots});
      ASSERT_OK(added.status());
      document = *added;
    }
    ASSERT_OK(SealAll(*device_, &store(), memory_->index_folder(), Progress()));
    ASSERT_OK(memory_->UpdateTextIndex(Progress()));
    ASSERT_OK(memory_->Publish());
    ASSERT_THAT(VisibleSegments(store()), SizeIs(1));
  }
  storage::DocumentStore& store() { return memory_->store(); }
  VerifyReport Run(bool repair, model::Transformer* model = nullptr) {
    VerifyOptions options;
    options.repair = repair;
    options.model = model;
    auto report = Verify(*device_, memory_.get(), options);
    EXPECT_OK(report.status());
    return report.value_or(VerifyReport());
  }
  void ExpectClean() {
    const VerifyReport report = Run(false);
    EXPECT_TRUE(report.ok);
    for (const VerifyFinding& finding : report.damaged) {
      ADD_FAILURE() << finding.kind << ": " << finding.what;
    }
  }
  // The window without its blocks.
  void RemoveBlocks(Slot slot) {
    Mutation mutation;
    mutation.DeleteWindow(slot);
    mutation.PutWindow(SyntheticWindow(slot, 64));
    ASSERT_OK(store().Commit(std::move(mutation)));
  }

  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_ = TestDevice();
  std::unique_ptr<Memory> memory_;
  DocumentRecord documents_[2];
};

TEST_F(VerifyTest, ACleanMemoryHasNothingToReport) {
  const VerifyReport report = Run(false);
  EXPECT_TRUE(report.ok);
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.blocks, 2 * 4 * kTestLayers);
  EXPECT_EQ(report.index_files, kTestLayers);
  EXPECT_THAT(report.damaged, IsEmpty());
  EXPECT_THAT(report.repaired, IsEmpty());
  const VerifyReport repaired = Run(true);
  EXPECT_TRUE(repaired.ok);
  EXPECT_THAT(repaired.repaired, IsEmpty());
}

TEST_F(VerifyTest, AReaderCanVerify) {
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), {}));
  EXPECT_TRUE(report.ok);
  EXPECT_EQ(report.documents, 2);
}

TEST_F(VerifyTest, AnIncompleteDocumentIsNoDamage) {
  ASSERT_OK(AddDocument(store(), {.complete = false}).status());
  ExpectClean();
}

TEST_F(VerifyTest, DeletedDocumentsAreNoDamage) {
  ASSERT_OK(memory_->DeleteDocuments({documents_[0].number}));
  ExpectClean();
}

TEST_F(VerifyTest, CancelsWhenAsked) {
  const std::atomic<bool> cancelled{true};
  VerifyOptions options;
  options.progress = Progress(nullptr, &cancelled);
  EXPECT_TRUE(absl::IsCancelled(Verify(*device_, memory_.get(), options).status()));
}

TEST_F(VerifyTest, AFlippedBitInAnIndexFileIsNamedAndRepaired) {
  const SegmentRecord segment = VisibleSegments(store())[0];
  FlipBit(memory_->index_folder() / segment.files[1].name, segment.files[1].size_bytes / 2);
  const VerifyReport found = Run(false);
  EXPECT_FALSE(found.ok);
  EXPECT_THAT(found.damaged, ElementsAre(Finding("index_file", segment.files[1].name)));

  const VerifyReport report = Run(true);
  EXPECT_TRUE(report.ok);
  EXPECT_THAT(report.repaired, ElementsAre(Finding("index_file", "checksum")));
  EXPECT_THAT(report.damaged, IsEmpty());
  ASSERT_THAT(memory_->Current()->segments, SizeIs(1));
  EXPECT_THAT(memory_->Current()->segments[0]->layers, SizeIs(kTestLayers));
  EXPECT_EQ(FilesIn(memory_->index_folder()), FilesOf(VisibleSegments(store())));
  ExpectClean();
}

TEST_F(VerifyTest, MissingIndexFilesAreNamedAndRepaired) {
  const SegmentRecord segment = VisibleSegments(store())[0];
  for (const storage::SegmentFile& file : segment.files) {
    std::filesystem::remove(memory_->index_folder() / file.name);
  }
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("index_file", segment.files[0].name),
                                              Finding("index_file", segment.files[1].name)));
  EXPECT_THAT(Run(true).repaired, SizeIs(2));
  ExpectClean();
}

// What a rebuild, or a merge of segments, has replaced is removed while another process verifies.
TEST_F(VerifyTest, FilesThatARebuildRemovesMeanwhileAreNotMissing) {
  for (const char* stage : {"verify records", "verify texts", "verify index files"}) {
    SCOPED_TRACE(stage);
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
    const std::string old_file = VisibleSegments(store())[0].files[0].name;
    int n_rebuilt = 0;
    VerifyOptions options;
    options.progress = Progress(
        [&](const ProgressUpdate& update) {
          if (update.stage != stage || n_rebuilt++ > 0) return;
          ASSERT_OK(Rebuild(*device_, memory_.get(), "", Progress()).status());
        },
        nullptr);
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), options));
    EXPECT_GE(n_rebuilt, 1);
    EXPECT_FALSE(std::filesystem::exists(memory_->index_folder() / old_file));
    EXPECT_TRUE(report.ok);
    EXPECT_THAT(report.damaged, IsEmpty());
    EXPECT_EQ(report.documents, 2);
    EXPECT_EQ(report.index_files, kTestLayers);
  }
}

TEST_F(VerifyTest, FilesThatAMergeOfSegmentsRemovesMeanwhileAreNotMissing) {
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
  const SegmentRecord old = VisibleSegments(store())[0];
  int n_merged = 0;
  VerifyOptions options;
  options.progress = Progress(
      [&](const ProgressUpdate& update) {
        if (update.stage != "verify texts" || n_merged++ > 0) return;
        ASSERT_OK(
            RebuildSegment(*device_, &store(), memory_->index_folder(), old, Progress()).status());
      },
      nullptr);
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), options));
  EXPECT_FALSE(std::filesystem::exists(memory_->index_folder() / old.files[0].name));
  EXPECT_TRUE(report.ok);
  EXPECT_THAT(report.damaged, IsEmpty());
  EXPECT_EQ(report.index_files, kTestLayers);
}

// And true damage stays damage.
TEST_F(VerifyTest, FilesThatAreMissingBesideARebuildAreNamed) {
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
  int n_rebuilt = 0;
  std::string removed;
  VerifyOptions options;
  options.progress = Progress(
      [&](const ProgressUpdate& update) {
        if (update.stage != "verify texts" || n_rebuilt++ > 0) return;
        ASSERT_OK(Rebuild(*device_, memory_.get(), "", Progress()).status());
        removed = VisibleSegments(store())[0].files[1].name;
        std::filesystem::remove(memory_->index_folder() / removed);
      },
      nullptr);
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), options));
  EXPECT_FALSE(report.ok);
  EXPECT_THAT(report.damaged, ElementsAre(Finding("index_file", removed)));
}

TEST_F(VerifyTest, SegmentsWithAGapAreSealedAgain) {
  const SegmentRecord segment = VisibleSegments(store())[0];
  SegmentRecord moved = segment;
  moved.slot_begin = 64;
  moved.n_tokens = 0;
  Mutation mutation;
  mutation.PutSegment(moved);
  ASSERT_OK(store().Commit(std::move(mutation)));
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("segment", "slots 0 to 64")));
  EXPECT_THAT(Run(true).repaired, ElementsAre(Finding("segment", "no segment")));
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(1));
  EXPECT_EQ(segments[0].slot_begin, 0u);
  EXPECT_EQ(segments[0].slot_end, segment.slot_end);
  ExpectClean();
}

TEST_F(VerifyTest, ADamagedTextIndexIsMadeAgain) {
  const std::filesystem::path path = memory_->text_index_path();
  memory_.reset();
  for (const char* suffix : {"-wal", "-shm"}) {
    std::filesystem::remove(std::filesystem::path(path) += suffix);
  }
  std::ofstream(path, std::ios::trunc) << "no database";
  {
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), {}));
    EXPECT_THAT(report.damaged, ElementsAre(Finding("text_index", path.string())));
  }
  ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kWrite));
  EXPECT_TRUE(Run(true).ok);
  ASSERT_OK_AND_ASSIGN(const uint64_t next_slot, memory_->text_index()->NextSlot());
  EXPECT_EQ(next_slot, memory_->Current()->next_slot);
  ExpectClean();
}

TEST_F(VerifyTest, WhatAWriterAddsWhileAReaderLooksIsNoDamage) {
  // A writer changes the text index in place: it is ahead of what a reader has seen of the store.
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
  ASSERT_OK(AddDocument(store(), {}).status());
  ASSERT_OK(memory_->UpdateTextIndex(Progress()));
  ASSERT_OK_AND_ASSIGN(const uint64_t next_slot, reader->text_index()->NextSlot());
  ASSERT_GT(next_slot, reader->Current()->next_slot);
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), {}));
  EXPECT_THAT(report.damaged, IsEmpty());
}

TEST_F(VerifyTest, SalvagingLeavesADamagedTextIndexToTheRepair) {
  const std::filesystem::path path = memory_->text_index_path();
  memory_.reset();
  for (const char* suffix : {"-wal", "-shm"}) {
    std::filesystem::remove(std::filesystem::path(path) += suffix);
  }
  std::ofstream(path, std::ios::trunc) << "no database";
  MemoryOptions options;
  options.mode = storage::OpenMode::kWrite;
  options.salvage = true;
  ASSERT_OK_AND_ASSIGN(memory_, Memory::Open(folder_ / "m", options));
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("text_index", path.string())));
  EXPECT_THAT(Run(true).repaired, SizeIs(1));
  ExpectClean();
}

TEST_F(VerifyTest, DamagedTableFilesAreNamedWhereTheMemoryOpensToBeSalvaged) {
  ASSERT_OK(store().Compact());  // everything in table files
  memory_.reset();
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "m" / "0001" / "store")) {
    if (entry.path().extension() != ".sst") continue;
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(entry.path()));
    if (bytes.find("books/1.txt") != std::string::npos) FlipBit(entry.path(), 20);
  }
  const absl::Status status = OpenMemory(folder_ / "m", storage::OpenMode::kRead).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  for (const auto mode : {storage::OpenMode::kRead, storage::OpenMode::kWrite}) {
    MemoryOptions options;
    options.mode = mode;
    options.salvage = true;
    ASSERT_OK_AND_ASSIGN(const auto memory, Memory::Open(folder_ / "m", options));
    VerifyOptions verify;
    verify.repair = mode == storage::OpenMode::kWrite;
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, memory.get(), verify));
    EXPECT_FALSE(report.ok);
    EXPECT_THAT(report.damaged, testing::Contains(Field("kind", &VerifyFinding::kind, "document")));
    EXPECT_THAT(report.damaged, testing::Contains(Field("kind", &VerifyFinding::kind, "table")));
    EXPECT_TRUE(report.needs_new_store);
  }

  // What an interrupted move left behind is no part of the next one.
  ASSERT_OK(CreateDirectories(folder_ / "m" / "0002" / "store"));
  ASSERT_OK(WriteFileAtomic(folder_ / "m" / "0002" / "store" / "CURRENT", "half a store"));
  ASSERT_OK(MoveToNewStore(folder_ / "m", Progress()));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "m" / "0001"));
  MemoryOptions options;
  options.mode = storage::OpenMode::kWrite;
  options.salvage = true;
  ASSERT_OK_AND_ASSIGN(memory_, Memory::Open(folder_ / "m", options));
  EXPECT_THAT(VisibleSegments(store()), SizeIs(1));
  // Only the titles and sources are lost; the texts, keys and values are there.
  const VerifyReport repaired = Run(true);
  EXPECT_FALSE(repaired.needs_new_store);
  EXPECT_TRUE(repaired.ok);
  EXPECT_THAT(repaired.repaired, SizeIs(2));
  EXPECT_THAT(repaired.repaired, Each(Finding("document", "recovered")));
  memory_.reset();
  ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kWrite));
  EXPECT_THAT(memory_->Current()->documents, SizeIs(2));
  ExpectClean();
}

TEST_F(VerifyTest, ATextIndexOfAnotherStoreIsMadeAgain) {
  const Slot next_slot = memory_->Current()->next_slot;
  ASSERT_OK(memory_->text_index()->Add({}, next_slot + 100));
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("text_index", "slot")));
  EXPECT_THAT(Run(true).repaired, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(const uint64_t repaired, memory_->text_index()->NextSlot());
  EXPECT_EQ(repaired, next_slot);
}

TEST_F(VerifyTest, EveryWindowIsComparedWithTheTextIndex) {
  // One window of many has other words than the document.
  const std::filesystem::path path = memory_->text_index_path();
  const auto make = [&](std::optional<size_t> changed, std::optional<size_t> left_out) {
    std::filesystem::remove(path);
    ASSERT_OK_AND_ASSIGN(const auto index,
                         index::TextIndex::Open(path, index::TextIndex::Mode::kWrite));
    std::vector<storage::WindowRecord> windows;
    for (Slot end = memory_->Current()->next_slot; end > 0; end = windows.front().slot_begin) {
      ASSERT_OK_AND_ASSIGN(storage::WindowRecord window, store().FindWindowBefore(end));
      windows.insert(windows.begin(), std::move(window));
    }
    ASSERT_GT(windows.size(), 2u);
    std::vector<index::WindowText> texts;
    for (size_t i = 0; i < windows.size(); ++i) {
      if (changed == i) windows[i].text[0] ^= 1;
      if (left_out != i) texts.push_back(TextOf(windows[i]));
    }
    ASSERT_OK(index->Add(texts, memory_->Current()->next_slot));
  };
  for (const bool changes : {true, false}) {
    memory_.reset();
    ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
    make(changes ? std::optional<size_t>(1) : std::nullopt,
         changes ? std::nullopt : std::optional<size_t>(1));
    EXPECT_THAT(Run(false).damaged,
                ElementsAre(Finding("text_index", changes ? "other text" : "lacks the words")));
    memory_.reset();
    MemoryOptions options;
    options.mode = storage::OpenMode::kWrite;
    options.salvage = true;
    ASSERT_OK_AND_ASSIGN(memory_, Memory::Open(folder_ / "m", options));
    EXPECT_THAT(Run(true).repaired, SizeIs(1));
    ExpectClean();
  }
}

TEST_F(VerifyTest, ATextIndexThatLagsIsNotedAndFilled) {
  ASSERT_OK(AddDocument(store(), {}).status());
  ASSERT_OK(memory_->Publish());
  const VerifyReport found = Run(false);
  EXPECT_TRUE(found.ok);
  EXPECT_THAT(found.damaged, IsEmpty());
  EXPECT_THAT(found.notes, ElementsAre(Finding("text_index", "lacks the words of the last")));
  const VerifyReport repaired = Run(true);
  EXPECT_THAT(repaired.repaired, ElementsAre(Finding("text_index", "lacks")));
  EXPECT_THAT(repaired.notes, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const uint64_t next_slot, memory_->text_index()->NextSlot());
  EXPECT_EQ(next_slot, memory_->Current()->next_slot);
  ExpectClean();
}

TEST_F(VerifyTest, AMissingOrEmptyTextIndexIsNamedAndMadeAgain) {
  const std::filesystem::path path = memory_->text_index_path();
  MemoryOptions salvage;
  salvage.mode = storage::OpenMode::kWrite;
  salvage.salvage = true;
  for (const bool is_empty : {false, true}) {
    memory_.reset();
    std::filesystem::remove(path);
    if (is_empty) ASSERT_OK(WriteFileAtomic(path, ""));
    {
      ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
      ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, reader.get(), {}));
      EXPECT_THAT(report.damaged, ElementsAre(Finding("text_index", path.string())));
    }
    ASSERT_OK_AND_ASSIGN(memory_, Memory::Open(folder_ / "m", salvage));
    EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("text_index", path.string())));
    EXPECT_THAT(Run(true).repaired, ElementsAre(Finding("text_index", path.string())));
    ASSERT_OK_AND_ASSIGN(const uint64_t next_slot, memory_->text_index()->NextSlot());
    EXPECT_EQ(next_slot, memory_->Current()->next_slot);
    ExpectClean();
  }
}

TEST_F(VerifyTest, WindowsThatNoDocumentHasAreRemoved) {
  ASSERT_OK_AND_ASSIGN(const storage::Counters counters, store().ReadCounters());
  Mutation mutation;
  PutWindowWithBlocks(counters.next_slot, 64, true, &mutation);
  mutation.PutNextSlot(counters.next_slot + 64);
  ASSERT_OK(store().Commit(std::move(mutation)));
  const std::string name = StrCat("slot ", counters.next_slot);
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("window", name)));
  EXPECT_THAT(Run(true).repaired, testing::Contains(Finding("window", name)));
  EXPECT_TRUE(absl::IsNotFound(store().GetWindow(counters.next_slot).status()));
  ExpectClean();
}

TEST_F(VerifyTest, ATextThatIsNotItsDocumentsIsNamed) {
  WindowRecord window = SyntheticWindow(64, 64);
  window.text[3] ^= 1;
  Mutation mutation;
  mutation.PutWindow(window);
  ASSERT_OK(store().Commit(std::move(mutation)));
  const VerifyReport report = Run(true);
  EXPECT_FALSE(report.ok);
  ASSERT_THAT(report.damaged, ElementsAre(Finding("document", "SHA-256")));
  EXPECT_EQ(report.damaged[0].document, documents_[0].id);
  EXPECT_THAT(report.damaged[0].what, HasSubstr("ingest it again (from books/1.txt)"));
}

TEST_F(VerifyTest, ALostWindowSaysWhatToDo) {
  Mutation mutation;
  mutation.DeleteWindow(64);
  ASSERT_OK(store().Commit(std::move(mutation)));
  for (const bool repair : {false, true}) {
    const VerifyReport report = Run(repair);
    EXPECT_FALSE(report.ok);
    ASSERT_FALSE(report.damaged.empty());
    EXPECT_THAT(report.damaged[0], Finding("window", "its text is lost"));
    EXPECT_THAT(report.damaged, Each(Field(&VerifyFinding::document, documents_[0].id)));
    EXPECT_THAT(
        report.damaged,
        Each(Field(&VerifyFinding::what, HasSubstr(StrCat("delete document ", documents_[0].id)))));
  }
  // And doing it helps.
  ASSERT_OK(memory_->DeleteDocuments({documents_[0].number}));
  ExpectClean();
}

TEST_F(VerifyTest, OverlappingWindowsOfTwoDocumentsAreNamed) {
  DocumentRecord document = documents_[1];
  document.number = 3;
  WindowLink link;
  link.document = 3;
  link.slot_begin = 64;
  link.n_tokens = 64;
  link.n_bytes = 64;
  const std::string text = SyntheticWindow(64, 64).text;
  document.id = Sha256Hex(text).substr(0, 32);
  document.size_bytes = 64;
  document.n_tokens = 64;
  document.n_windows = 1;
  Mutation mutation;
  mutation.PutLink(link);
  mutation.PutDocument(document);
  mutation.PutNextDocumentNumber(4);
  ASSERT_OK(store().Commit(std::move(mutation)));
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("link", documents_[0].id)));
}

TEST_F(VerifyTest, ADocumentWithoutRecordIsRecoveredFromItsWindows) {
  ASSERT_OK_AND_ASSIGN(const auto links, store().Links(documents_[0].number));
  Mutation mutation;
  mutation.DeleteDocument(documents_[0].number);
  for (const WindowLink& link : links) mutation.PutLink(link);
  ASSERT_OK(store().Commit(std::move(mutation)));
  EXPECT_THAT(Run(false).damaged, ElementsAre(Finding("document", "no record")));
  const VerifyReport report = Run(true);
  EXPECT_TRUE(report.ok);
  ASSERT_THAT(report.repaired, ElementsAre(Finding("document", "recovered")));
  EXPECT_EQ(report.repaired[0].document, documents_[0].id);
  ASSERT_THAT(memory_->Current()->documents, SizeIs(2));
  EXPECT_EQ(memory_->Current()->documents[0].id, documents_[0].id);
  EXPECT_EQ(memory_->Current()->n_tokens, 512u);
  ExpectClean();
}

TEST_F(VerifyTest, ADocumentThatLostALinkIsRemovedAndSaysSo) {
  ASSERT_OK_AND_ASSIGN(const auto links, store().Links(documents_[0].number));
  Mutation mutation;
  mutation.DeleteDocument(documents_[0].number);
  mutation.PutDocument(documents_[0]);
  for (const WindowLink& link : links) {
    if (link.ordinal != 1) mutation.PutLink(link);
  }
  ASSERT_OK(store().Commit(std::move(mutation)));
  const VerifyReport report = Run(true);
  EXPECT_FALSE(report.ok);
  ASSERT_FALSE(report.damaged.empty());
  EXPECT_THAT(report.damaged[0], Finding("link", "it was removed: ingest it again"));
  EXPECT_EQ(report.damaged[0].document, documents_[0].id);
  EXPECT_THAT(memory_->Current()->documents, SizeIs(1));
  ExpectClean();
}

TEST_F(VerifyTest, MissingBlocksWithoutAModelStayDamaged) {
  RemoveBlocks(64);
  for (const bool repair : {false, true}) {
    const VerifyReport report = Run(repair);
    EXPECT_FALSE(report.ok);
    EXPECT_THAT(report.damaged, Each(Finding("block", "slot 64")));
    EXPECT_THAT(report.damaged, Each(Field(&VerifyFinding::document, documents_[0].id)));
    if (repair) {
      EXPECT_THAT(report.damaged, Each(Finding("block", "pass the memory's model")));
    }
  }
}

// Blocks of a real, if tiny, model, in either type.
class VerifyWithModelTest : public testing::TestWithParam<EntryType> {
 protected:
  void SetUp() override {
    ASSERT_OK(WriteTinyModel(folder_ / "model", 1));
    if (GetParam() == EntryType::kFloat32) {
      ASSERT_OK(SetConfig(
          folder_ / "model",
          {{"model_type", "longllama"}, {"mem_layers", {1, 2}}, {"mem_dtype", "float32"}}));
    }
    auto model = LoadTinyModel(device_.get(), folder_ / "model");
    ASSERT_OK(model.status());
    model_ = *std::move(model);
    MemoryOptions options;
    options.mode = storage::OpenMode::kCreate;
    auto memory = Memory::Open(folder_ / "m", options);
    ASSERT_OK(memory.status());
    memory_ = *std::move(memory);
    StoreSettings settings = SyntheticSettings("auto");
    settings.fingerprint = model_->fingerprint();
    settings.n_kv_heads = kTinyKvHeads;
    settings.head_dim = kTinyHeadDim;
    settings.entry_type = model_->memory_config().entry_type;
    ASSERT_EQ(settings.entry_type, GetParam());
    ASSERT_OK(memory_->InitializeSettings(settings));
    ASSERT_OK(
        AddDocument(memory_->store(), {.n_windows = 5, .n_tokens = kTokens, .with_blocks = false})
            .status());
    Mutation mutation;
    for (Slot slot = 0; slot < 5 * kTokens; slot += kTokens) {
      const WindowRecord window = SyntheticWindow(slot, kTokens);
      const model::WindowTokens tokens{window.context_ids, window.ids};
      auto encoded = model_->Encode({&tokens, 1});
      ASSERT_OK(encoded.status());
      for (int layer = 0; layer < kTestLayers; ++layer) {
        mutation.PutBlock(slot, layer,
                          ToBlock((*encoded)[0], layer, kTinyKvHeads, kTinyHeadDim,
                                  memory_->settings()->entry_type));
      }
      mutation.PutQuerySample(slot, ToQuerySample((*encoded)[0]));
    }
    ASSERT_OK(memory_->store().Commit(std::move(mutation)));
    ASSERT_OK(memory_->UpdateTextIndex(Progress()));
    ASSERT_OK(memory_->Publish());
  }

  // In a window: large enough for the store to keep its blocks in blob files.
  static constexpr uint32_t kTokens = 256;
  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_ = TestDevice();
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<Memory> memory_;
};

TEST_P(VerifyWithModelTest, MissingBlocksAreEncodedAgainFromTheText) {
  storage::DocumentStore& store = memory_->store();
  std::vector<storage::Block> before;
  Mutation mutation;
  for (const Slot slot : {Slot{kTokens}, Slot{4 * kTokens}}) {
    for (int layer = 0; layer < kTestLayers; ++layer) {
      ASSERT_OK_AND_ASSIGN(storage::Block block, store.GetBlock(slot, layer));
      before.push_back(std::move(block));
    }
    mutation.DeleteWindow(slot);
    mutation.PutWindow(SyntheticWindow(slot, kTokens));
  }
  ASSERT_OK(store.Commit(std::move(mutation)));

  VerifyOptions options;
  options.repair = true;
  options.model = model_.get();
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, memory_.get(), options));
  EXPECT_TRUE(report.ok);
  EXPECT_THAT(report.damaged, IsEmpty());
  EXPECT_THAT(report.repaired, Each(Finding("block", "slot")));
  size_t i = 0;
  for (const Slot slot : {Slot{kTokens}, Slot{4 * kTokens}}) {
    for (int layer = 0; layer < kTestLayers; ++layer, ++i) {
      ASSERT_OK_AND_ASSIGN(const storage::Block block, store.GetBlock(slot, layer));
      ASSERT_EQ(block.keys.size(), before[i].keys.size());
      // Two windows encoded together and one alone may round differently: bfloat16 keeps 8 bits.
      const bool is_float32 = GetParam() == EntryType::kFloat32;
      const auto tolerance = [&](float x) { return is_float32 ? 1e-5f : 0.01f + std::abs(x) / 64; };
      for (size_t j = 0; j < block.keys.size(); ++j) {
        ASSERT_NEAR(block.keys[j], before[i].keys[j], tolerance(before[i].keys[j])) << j;
        ASSERT_NEAR(block.values[j], before[i].values[j], tolerance(before[i].values[j])) << j;
      }
    }
  }
  ASSERT_OK_AND_ASSIGN(const VerifyReport again, Verify(*device_, memory_.get(), {}));
  EXPECT_TRUE(again.ok);
}

TEST_P(VerifyWithModelTest, FlippedBitsInTheStoreAreRepaired) {
  memory_.reset();
  int n_flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "m" / "0001" / "store")) {
    if (entry.path().extension() != ".blob") continue;
    FlipBit(entry.path(), entry.file_size() / 4);
    FlipBit(entry.path(), entry.file_size() / 2);
    ++n_flipped;
  }
  ASSERT_GT(n_flipped, 0);
  ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kWrite));
  ASSERT_OK_AND_ASSIGN(const VerifyReport found, Verify(*device_, memory_.get(), {}));
  EXPECT_FALSE(found.ok);
  EXPECT_THAT(found.damaged, SizeIs(testing::Ge(2)));
  EXPECT_THAT(found.damaged, Each(Finding("block", "slot")));

  VerifyOptions options;
  options.repair = true;
  options.model = model_.get();
  ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device_, memory_.get(), options));
  EXPECT_TRUE(report.ok);
  EXPECT_THAT(report.repaired, SizeIs(found.damaged.size()));
  ASSERT_OK_AND_ASSIGN(const VerifyReport again, Verify(*device_, memory_.get(), {}));
  EXPECT_TRUE(again.ok);
}

TEST_P(VerifyWithModelTest, AnotherModelIsRefused) {
  ASSERT_OK(WriteTinyModel(folder_ / "other", 2));
  ASSERT_OK_AND_ASSIGN(const auto other, LoadTinyModel(device_.get(), folder_ / "other"));
  Mutation mutation;
  mutation.DeleteWindow(kTokens);
  mutation.PutWindow(SyntheticWindow(kTokens, kTokens));
  ASSERT_OK(memory_->store().Commit(std::move(mutation)));
  VerifyOptions options;
  options.repair = true;
  options.model = other.get();
  const absl::Status status = Verify(*device_, memory_.get(), options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(model_->fingerprint()));
}

INSTANTIATE_TEST_SUITE_P(EntryTypes, VerifyWithModelTest,
                         testing::Values(EntryType::kBFloat16, EntryType::kFloat32),
                         [](const auto& info) { return std::string(EntryTypeName(info.param)); });

}  // namespace
}  // namespace fovea::memory
