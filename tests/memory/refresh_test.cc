// A reader that follows the writer where something goes wrong between the two: a read that fails
// once, a version that is swapped at the worst moment.
#include "base/file.h"
#include "tests/memory/synthetic_memory.h"
#include "tests/storage/fault_file_system.h"

namespace fovea::memory {
namespace {

using storage::FaultFileSystem;
using storage::FileFailure;
using storage::FileOperation;
using storage::OpenMode;
using ::testing::Contains;
using ::testing::SizeIs;

class RefreshTest : public testing::Test {
 protected:
  std::filesystem::path Folder() const { return folder_ / "m"; }
  // A memory of two documents, not open.
  void MakeMemory() {
    ASSERT_OK_AND_ASSIGN(const auto memory, CreateSyntheticMemory(Folder(), "exact"));
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(memory->Publish());
  }
  // Deletes the oldest document and adds one, as another process does.
  void ChangeMemory() {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
    ASSERT_OK(memory->DeleteDocuments({memory->Current()->documents.front().number}));
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(memory->UpdateTextIndex(Progress()));
  }
  // What a re-encoding does in the end. The next version has a document more.
  void SwapVersions() {
    std::filesystem::copy(Folder() / "0001", Folder() / "0002",
                          std::filesystem::copy_options::recursive);
    {
      MemoryOptions options;
      options.mode = OpenMode::kWrite;
      options.version = "0002";
      ASSERT_OK_AND_ASSIGN(const auto memory, Memory::Open(Folder(), options));
      ASSERT_OK(AddDocument(memory->store(), {}).status());
      ASSERT_OK(memory->UpdateTextIndex(Progress()));
    }
    ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0002\n"));
    std::filesystem::remove_all(Folder() / "0001");
  }
  absl::StatusOr<std::unique_ptr<Memory>> OpenWithFaults(OpenMode mode) {
    MemoryOptions options;
    options.mode = mode;
    options.file_system = disk_.file_system();
    return Memory::Open(Folder(), options);
  }
  static std::vector<DocumentNumber> Numbers(const Memory& memory) {
    std::vector<DocumentNumber> numbers;
    for (const DocumentRecord& document : memory.Current()->documents) {
      numbers.push_back(document.number);
    }
    return numbers;
  }

  TemporaryFolder folder_{storage::FastTemporaryRoot()};
  FaultFileSystem disk_;
};

TEST_F(RefreshTest, WhatFailedHalfWayIsFinishedByTheNextCall) {
  int n_failed = 0;
  for (int64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    std::filesystem::remove_all(Folder());
    MakeMemory();
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenWithFaults(OpenMode::kRead));
    const std::vector<DocumentNumber> before = Numbers(*reader);
    ChangeMemory();
    const int64_t n_before = disk_.n_operations(FileOperation::kRead);
    disk_.FailAt(FileOperation::kRead, nth, FileFailure::kIoError);
    const absl::StatusOr<bool> refreshed = reader->Refresh();
    const bool was_reached = disk_.n_operations(FileOperation::kRead) >= n_before + nth;
    disk_.Heal();
    if (!refreshed.ok()) {
      ++n_failed;
      EXPECT_EQ(Numbers(*reader), before);
      ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
      EXPECT_TRUE(changed);
    }
    EXPECT_EQ(Numbers(*reader), (std::vector<DocumentNumber>{2, 3}));
    EXPECT_EQ(reader->Current()->n_tokens, 2u * 4 * 64);
    ASSERT_OK_AND_ASSIGN(const bool again, reader->Refresh());
    EXPECT_FALSE(again);
    if (!was_reached) break;
  }
  EXPECT_GT(n_failed, 5);
}

TEST_F(RefreshTest, AVersionThatDoesNotOpenLeavesTheOldOne) {
  MakeMemory();
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
  ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0002\n"));
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(reader->Refresh().ok());
    ASSERT_THAT(reader->Current()->documents, SizeIs(2));
    EXPECT_OK(reader->store().GetWindow(0).status());
  }
  ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0001\n"));
  ASSERT_OK_AND_ASSIGN(bool changed, reader->Refresh());
  EXPECT_FALSE(changed);
  SwapVersions();
  ASSERT_OK_AND_ASSIGN(changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_THAT(reader->Current()->documents, SizeIs(3));
}

// A flipped bit in CURRENT: nobody may start an empty memory beside the documents.
TEST_F(RefreshTest, AVersionThatIsNotThereIsNamedAndNotMade) {
  MakeMemory();
  ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0201\n"));
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite, OpenMode::kCreate}) {
    const absl::Status status = OpenMemory(Folder(), mode).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("only: 0001"));
    EXPECT_FALSE(std::filesystem::exists(Folder() / "0201"));
  }
  ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0001\n"));
  ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kCreate));
  EXPECT_THAT(memory->Current()->documents, SizeIs(2));
}

TEST_F(RefreshTest, APartOfADocumentDoesNotPassForTheWhole) {
  MakeMemory();
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
    DocumentRecord document = memory->Current()->documents[1];
    document.n_windows += 1;
    Mutation mutation;
    mutation.PutDocument(document);
    ASSERT_OK(memory->store().Commit(std::move(mutation)));
  }
  for (const absl::Status& status :
       {reader->Refresh().status(), OpenMemory(Folder(), OpenMode::kRead).status()}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr("books/2.txt) has 4 windows, want 5"));
  }
}

// The slots of passages with the first word of the window at `slot`.
std::vector<uint64_t> FindFirstWord(Memory& memory, Slot slot) {
  std::vector<uint64_t> slots;
  if (memory.text_index() == nullptr) return slots;
  const auto hits = memory.text_index()->Search(SyntheticWindow(slot, 64).text.substr(0, 5), 10,
                                                [](uint64_t) { return true; });
  EXPECT_OK(hits.status());
  for (const index::PassageHit& hit : hits.value_or(std::vector<index::PassageHit>())) {
    slots.push_back(hit.slot_begin);
  }
  return slots;
}

TEST_F(RefreshTest, AReaderFollowsATextIndexThatIsMadeAgain) {
  for (const char* how : {"repaired", "damaged", "removed"}) {
    SCOPED_TRACE(how);
    std::filesystem::remove_all(Folder());
    MakeMemory();
    std::filesystem::path path;
    {
      ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
      ASSERT_OK(memory->UpdateTextIndex(Progress()));
      path = memory->text_index_path();
    }
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
    ASSERT_THAT(FindFirstWord(*reader, 256), Contains(256));
    if (how == std::string("damaged")) {
      std::filesystem::remove(path);  // under another number than the reader's file
      std::ofstream(path) << "no database";
    } else if (how == std::string("removed")) {
      std::filesystem::remove(path);
    }
    {
      ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
      if (how == std::string("repaired")) ASSERT_OK(memory->RebuildTextIndex(Progress()));
      ASSERT_OK(AddDocument(memory->store(), {}).status());
      ASSERT_OK(memory->UpdateTextIndex(Progress()));
    }
    ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
    EXPECT_TRUE(changed);
    EXPECT_THAT(reader->Current()->documents, SizeIs(3));
    EXPECT_THAT(FindFirstWord(*reader, 256), Contains(256));
    EXPECT_THAT(FindFirstWord(*reader, 512), Contains(512));
  }
}

TEST_F(RefreshTest, AReaderFindsATextIndexThatWasMadeSinceItOpened) {
  MakeMemory();
  std::filesystem::path path;
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
    path = memory->text_index_path();
  }
  std::filesystem::remove(path);
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
  EXPECT_EQ(reader->text_index(), nullptr);
  ASSERT_OK_AND_ASSIGN(bool changed, reader->Refresh());
  EXPECT_FALSE(changed);
  // Which changes nothing else.
  ASSERT_OK(OpenMemory(Folder(), OpenMode::kWrite).status());
  ASSERT_OK_AND_ASSIGN(changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_THAT(FindFirstWord(*reader, 256), Contains(256));
}

// A reader has the old text index until the new one is whole.
TEST_F(RefreshTest, ATextIndexThatIsBeingMadeHidesNothing) {
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, CreateSyntheticMemory(Folder(), "exact"));
    // More windows than one transaction takes.
    ASSERT_OK(AddDocument(memory->store(), {.n_windows = 600, .with_blocks = false}).status());
    ASSERT_OK(memory->UpdateTextIndex(Progress()));
    ASSERT_OK(memory->Publish());
  }
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
  constexpr Slot kLast = 599 * 64;
  ASSERT_THAT(FindFirstWord(*reader, kLast), Contains(kLast));
  ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(Folder(), OpenMode::kWrite));
  int n_looks = 0;
  const Progress look(
      [&](const ProgressUpdate&) {
        ++n_looks;
        EXPECT_THAT(FindFirstWord(*reader, kLast), Contains(kLast));
        const auto opened = OpenMemory(Folder(), OpenMode::kRead);
        ASSERT_OK(opened.status());
        EXPECT_THAT(FindFirstWord(**opened, kLast), Contains(kLast));
      },
      nullptr);
  ASSERT_OK(memory->RebuildTextIndex(look));
  EXPECT_GE(n_looks, 3);
  EXPECT_THAT(FindFirstWord(*reader, kLast), Contains(kLast));
  EXPECT_THAT(FilesIn(memory->version_folder()),
              ::testing::Not(Contains(::testing::HasSubstr(".new"))));
}

TEST_F(RefreshTest, AViewOutlivesTheVersionAndTheMemoryThatItCameFrom) {
  {
    ASSERT_OK_AND_ASSIGN(const auto memory, CreateSyntheticMemory(Folder(), "exact"));
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(memory->UpdateTextIndex(Progress()));
  }
  ASSERT_OK_AND_ASSIGN(auto reader, OpenMemory(Folder(), OpenMode::kRead));
  const std::shared_ptr<const Generation> view = reader->Current();
  const auto expect_whole = [&] {
    ASSERT_THAT(view->documents, SizeIs(2));
    std::string text;
    ASSERT_OK(ReadText(*view, view->documents[1], [&](std::string_view piece) {
      text += piece;
      return absl::OkStatus();
    }));
    EXPECT_THAT(text, ::testing::StartsWith(SyntheticWindow(256, 64).text));
    for (int layer = 0; layer < view->settings->n_mem_layers; ++layer) {
      EXPECT_OK(view->source->cache().Keys(256, layer).status());
      EXPECT_OK(view->source->cache().Values(256, layer).status());
    }
    ASSERT_OK_AND_ASSIGN(const auto hits, view->source->text_index().Search(
                                              SyntheticWindow(256, 64).text.substr(0, 5), 10,
                                              [](uint64_t) { return true; }));
    EXPECT_FALSE(hits.empty());
  };
  expect_whole();
  // The next version, as a re-encoding fills it; this one's files are still there.
  std::filesystem::copy(Folder() / "0001", Folder() / "0002",
                        std::filesystem::copy_options::recursive);
  ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", "0002\n"));
  ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_NE(reader->Current()->source, view->source);
  EXPECT_EQ(reader->version_folder().filename(), "0002");
  expect_whole();
  reader.reset();
  expect_whole();
}

TEST_F(RefreshTest, OpeningBesideASwapOfVersionsFindsTheNewOne) {
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite, OpenMode::kCreate}) {
    // At its first file, and when it has read most of them.
    for (const char* moment : {"CURRENT", ".sst"}) {
      SCOPED_TRACE(StrCat("mode ", static_cast<int>(mode), ", ", moment));
      std::filesystem::remove_all(Folder());
      MakeMemory();
      bool swapped = false;
      disk_.CallBeforeOpen(moment, [&] {
        swapped = true;
        SwapVersions();
      });
      ASSERT_OK_AND_ASSIGN(const auto memory, OpenWithFaults(mode));
      EXPECT_TRUE(swapped);
      EXPECT_EQ(memory->version_folder().filename(), "0002");
      EXPECT_THAT(memory->Current()->documents, SizeIs(3));
      if (mode == OpenMode::kRead) continue;
      // What is stored now is there for the next process.
      ASSERT_OK(AddDocument(memory->store(), {}).status());
      ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(Folder(), OpenMode::kRead));
      EXPECT_THAT(reader->Current()->documents, SizeIs(4));
    }
  }
}

}  // namespace
}  // namespace fovea::memory
