// What a memory makes of a text index that is damaged, or of an earlier version.
#include "memory/text_index_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <random>

#include "base/file.h"
#include "tests/index/plain_text_index.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kAllowAll = [](uint64_t) { return true; };

class TextIndexFileTest : public testing::Test {
 protected:
  void SetUp() override {
    auto created = CreateSyntheticMemory(folder_ / "m", "exact");
    ASSERT_OK(created.status());
    for (int i = 0; i < 8; ++i) ASSERT_OK(AddDocument((*created)->store(), {}).status());
    ASSERT_OK((*created)->UpdateTextIndex(Progress()));
    path_ = (*created)->text_index_path();
  }
  std::unique_ptr<Memory> Open(storage::OpenMode mode) {
    auto memory = OpenMemory(folder_ / "m", mode);
    EXPECT_OK(memory.status());
    return memory.ok() ? *std::move(memory) : nullptr;
  }
  static const TextIndexFile& FileOf(Memory& memory) {
    return memory.Current()->source->text_index();
  }
  static size_t CountHits(Memory& memory, Slot slot) {
    const auto hits = FileOf(memory).Search(SyntheticWindow(slot, 64).text, 1000, kAllowAll);
    EXPECT_OK(hits.status());
    return hits.ok() ? hits->size() : 0;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_;
};

TEST_F(TextIndexFileTest, TheNextUpdateGivesAFileOfAnEarlierVersionItsChecksums) {
  const size_t n_hits = CountHits(*Open(storage::OpenMode::kRead), 0);
  ASSERT_GT(n_hits, 0u);
  std::vector<std::string> texts;
  uint64_t next_slot = 0;
  {
    const auto memory = Open(storage::OpenMode::kRead);
    next_slot = memory->Current()->next_slot;
    for (Slot slot = 0; slot < next_slot; slot += 64) {
      texts.push_back(SyntheticWindow(slot, 64).text);
    }
  }
  std::vector<index::PassageText> passages;
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t begin = 0; begin < 64; begin += 24) {
      passages.push_back({i * 64 + begin, std::string_view(texts[i]).substr(begin, 24)});
    }
  }
  std::filesystem::remove(path_);
  index::MakePlainTextIndex(path_, index::kWordsVersion, passages, next_slot);
  // It serves as it is, readers and writers.
  for (const auto mode : {storage::OpenMode::kRead, storage::OpenMode::kWrite}) {
    const auto memory = Open(mode);
    EXPECT_EQ(CountHits(*memory, 0), n_hits);
    ASSERT_NE(memory->text_index(), nullptr);
    EXPECT_FALSE(memory->text_index()->is_newest_version());
  }
  const auto memory = Open(storage::OpenMode::kWrite);
  ASSERT_OK(memory->UpdateTextIndex(Progress()));
  EXPECT_TRUE(memory->text_index()->is_newest_version());
  EXPECT_EQ(CountHits(*memory, 0), n_hits);
  EXPECT_EQ(*FileOf(*memory).NextSlot(), next_slot);
}

TEST_F(TextIndexFileTest, DamageMeansNoPassagesAndAReason) {
  // Beyond the pages that opening it reads.
  const std::string sound = *ReadFile(path_);
  int n_damaged_searches = 0;
  for (size_t page = 4096; page < sound.size(); page += 4096) {
    std::string bytes = sound;
    bytes[page + 1000] = static_cast<char>(bytes[page + 1000] ^ 4);
    ASSERT_OK(WriteFileAtomic(path_, bytes));
    {
      const auto reader = Open(storage::OpenMode::kRead);
      const auto hits = FileOf(*reader).Search(SyntheticWindow(0, 64).text, 10, kAllowAll);
      ASSERT_OK(hits.status());
      const absl::Status status = FileOf(*reader).status();
      if (!status.ok()) {
        ++n_damaged_searches;
        EXPECT_THAT(*hits, IsEmpty());
        EXPECT_TRUE(absl::IsDataLoss(status)) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr(path_.string()));
        // Once a whole file is there, nothing is said any more.
        ASSERT_OK(WriteFileAtomic(path_, sound));
        ASSERT_OK(reader->Refresh().status());
        EXPECT_GT(CountHits(*reader, 0), 0u);
        EXPECT_OK(FileOf(*reader).status());
        ASSERT_OK(WriteFileAtomic(path_, bytes));
      }
    }
    // A writer that meets the damage makes a new file.
    const auto writer = Open(storage::OpenMode::kWrite);
    ASSERT_OK(AddDocument(writer->store(), {}).status());
    ASSERT_OK(writer->UpdateTextIndex(Progress()));
    ASSERT_OK(writer->Publish());
    EXPECT_EQ(*FileOf(*writer).NextSlot(), writer->Current()->next_slot);
  }
  EXPECT_GT(n_damaged_searches, 1);
}

// The text index of another memory, put where this one's should be.
TEST_F(TextIndexFileTest, TheIndexOfAnotherMemoryIsToldAndMadeAgain) {
  const auto make_other = [&](const std::filesystem::path& folder, int n_same, int n_other) {
    auto other = CreateSyntheticMemory(folder, "exact");
    ASSERT_OK(other.status());
    for (int i = 0; i < n_same; ++i) ASSERT_OK(AddDocument((*other)->store(), {}).status());
    for (int i = 0; i < n_other; ++i) {
      ASSERT_OK(
          AddDocument((*other)->store(), {.n_tokens = static_cast<uint32_t>(30 + i % 7)}).status());
    }
    ASSERT_OK((*other)->UpdateTextIndex(Progress()));
  };
  const std::string own = *ReadFile(path_);
  const size_t n_hits = CountHits(*Open(storage::OpenMode::kRead), 0);
  struct Case {
    const char* name;
    int n_same;
    int n_other;
  };
  // Of other documents; a copy that went another way at the end; one that went on.
  for (const Case& c : {Case{"other", 0, 12}, Case{"fork", 7, 1}, Case{"ahead", 9, 0}}) {
    SCOPED_TRACE(c.name);
    make_other(folder_ / c.name, c.n_same, c.n_other);
    const std::string foreign = *ReadFile(folder_ / c.name / "0001" / path_.filename());
    ASSERT_OK(WriteFileAtomic(path_, foreign));
    {
      // A reader does without.
      const auto reader = Open(storage::OpenMode::kRead);
      EXPECT_TRUE(absl::IsDataLoss(FileOf(*reader).status())) << FileOf(*reader).status();
      EXPECT_THAT(std::string(FileOf(*reader).status().message()),
                  testing::AllOf(HasSubstr(path_.string()), HasSubstr("another memory")));
      EXPECT_EQ(CountHits(*reader, 0), 0u);
    }
    const auto writer = Open(storage::OpenMode::kWrite);
    EXPECT_THAT(writer->text_index_made_again(), HasSubstr("another memory"));
    EXPECT_EQ(*FileOf(*writer).NextSlot(), writer->Current()->next_slot);
    EXPECT_EQ(CountHits(*writer, 0), n_hits);
  }
}

// The memory's own, or that of a copy, from before or after a deletion.
TEST_F(TextIndexFileTest, AnIndexWithOtherWindowsIsToldAndMadeAgain) {
  const std::string with_all = *ReadFile(path_);
  std::string without_one;
  {
    auto writer = Open(storage::OpenMode::kWrite);
    ASSERT_OK(writer->DeleteDocuments({writer->Current()->documents[3].number}));
    ASSERT_OK(writer->EraseDeletedTexts(Progress()));
    writer.reset();
    without_one = *ReadFile(path_);
  }
  // What was deleted is in it: the next update takes it out.
  ASSERT_OK(WriteFileAtomic(path_, with_all));
  {
    const auto writer = Open(storage::OpenMode::kWrite);
    EXPECT_EQ(CompareWindows(*writer->text_index(), writer->store())->n_deleted, 4);
    ASSERT_OK(writer->UpdateTextIndex(Progress()));
    EXPECT_EQ(CompareWindows(*writer->text_index(), writer->store())->n_deleted, 0);
  }
  // Nor does a rebuild go on with such a one.
  {
    const auto writer = Open(storage::OpenMode::kWrite);
    const uint64_t next = FileOf(*writer).generation() + 1;
    const std::filesystem::path prepared =
        writer->version_folder() / StrCat("text-", next, ".sqlite");
    ASSERT_OK(WriteFileAtomic(prepared, with_all));
    ASSERT_OK(writer->PrepareTextIndex(next, Progress()));
    const auto made = index::TextIndex::Open(prepared, index::TextIndex::Mode::kRead);
    ASSERT_OK(made.status());
    EXPECT_EQ(CompareWindows(**made, writer->store())->n_deleted, 0);
  }
  // Windows in the middle are not in it, in a memory that has them.
  auto other = CreateSyntheticMemory(folder_ / "whole", "exact");
  ASSERT_OK(other.status());
  for (int i = 0; i < 8; ++i) ASSERT_OK(AddDocument((*other)->store(), {}).status());
  ASSERT_OK((*other)->UpdateTextIndex(Progress()));
  const std::filesystem::path path = (*other)->text_index_path();
  other->reset();
  ASSERT_OK(WriteFileAtomic(path, without_one));
  {
    const auto reader = OpenMemory(folder_ / "whole", storage::OpenMode::kRead);
    ASSERT_OK(reader.status());
    EXPECT_THAT(std::string(FileOf(**reader).status().message()),
                HasSubstr("lacks the words of 4"));
  }
  const auto writer = OpenMemory(folder_ / "whole", storage::OpenMode::kWrite);
  ASSERT_OK(writer.status());
  EXPECT_THAT((*writer)->text_index_made_again(), HasSubstr("lacks the words of 4"));
}

// Opening looks at a few windows; a hit in any other one is compared when it is found.
TEST_F(TextIndexFileTest, AHitInAnotherTextIsNoHit) {
  const auto reader = Open(storage::OpenMode::kRead);
  const uint64_t next_slot = reader->Current()->next_slot;
  const std::filesystem::path forged = folder_ / "forged.sqlite";
  {
    const auto index = index::TextIndex::Open(forged, index::TextIndex::Mode::kWrite);
    ASSERT_OK(index.status());
    std::vector<storage::WindowRecord> windows;
    for (Slot slot = 0; slot < next_slot; slot += 64) windows.push_back(SyntheticWindow(slot, 64));
    std::string other = windows[1].text;
    std::reverse(other.begin(), other.end());
    windows[1].text = "sesame " + other.substr(7);
    std::vector<index::WindowText> texts;
    for (const auto& window : windows) texts.push_back(TextOf(window));
    ASSERT_OK((*index)->Add(texts, next_slot));
  }
  ASSERT_OK(WriteFileAtomic(path_, *ReadFile(forged)));
  const auto again = Open(storage::OpenMode::kRead);
  ASSERT_OK(FileOf(*again).status());  // no sample was of that window
  const auto hits = FileOf(*again).Search("sesame", 10, kAllowAll);
  ASSERT_OK(hits.status());
  EXPECT_THAT(*hits, IsEmpty());
  EXPECT_THAT(std::string(FileOf(*again).status().message()), HasSubstr("another memory"));
}

TEST_F(TextIndexFileTest, WhatIsNoFileIsReplaced) {
  for (const bool is_fifo : {true, false}) {
    std::filesystem::remove(path_);
    if (is_fifo) {
      ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
    } else {
      std::filesystem::create_directories(path_ / "in it");
    }
    EXPECT_TRUE(absl::IsDataLoss(FileOf(*Open(storage::OpenMode::kRead)).status()));
    std::filesystem::create_directories((std::filesystem::path(path_) += ".new") / "in it");
    const auto writer = Open(storage::OpenMode::kWrite);
    EXPECT_EQ(*FileOf(*writer).NextSlot(), writer->Current()->next_slot);
    EXPECT_NE(writer->text_index_made_again(), "");
  }
}

TEST_F(TextIndexFileTest, TheNextUpdateReadsEveryPage) {
  const std::string sound = *ReadFile(path_);
  for (size_t page = 4096; page < sound.size(); page += 4096) {
    SCOPED_TRACE(page / 4096);
    std::string bytes = sound;
    bytes[page + 1000] = static_cast<char>(bytes[page + 1000] ^ 4);
    ASSERT_OK(WriteFileAtomic(path_, bytes));
    // Nothing new to add: what is damaged is made again all the same.
    const auto writer = Open(storage::OpenMode::kWrite);
    ASSERT_OK(writer->UpdateTextIndex(Progress()));
    EXPECT_THAT(writer->text_index_made_again(), HasSubstr("checksum"));
    EXPECT_OK(writer->text_index()->Verify());
  }
  const auto writer = Open(storage::OpenMode::kWrite);
  ASSERT_OK(writer->UpdateTextIndex(Progress()));
  EXPECT_EQ(writer->text_index_made_again(), "");
}

TEST_F(TextIndexFileTest, AMissingOrEmptyFileIsMadeAgain) {
  for (const bool is_empty : {false, true}) {
    std::filesystem::remove(path_);
    if (is_empty) ASSERT_OK(WriteFileAtomic(path_, ""));
    const auto writer = Open(storage::OpenMode::kWrite);
    EXPECT_THAT(writer->text_index_made_again(), HasSubstr(path_.string()));
    EXPECT_EQ(*FileOf(*writer).NextSlot(), writer->Current()->next_slot);
  }
}

TEST_F(TextIndexFileTest, WhatARebuildHasPreparedGoesWithWhatIsDeleted) {
  const auto writer = Open(storage::OpenMode::kWrite);
  const uint64_t next = FileOf(*writer).generation() + 1;
  ASSERT_OK(writer->PrepareTextIndex(next, Progress()));
  const std::filesystem::path prepared =
      writer->version_folder() / StrCat("text-", next, ".sqlite");
  EXPECT_TRUE(std::filesystem::exists(prepared));
  ASSERT_OK(writer->DeleteDocuments({writer->Current()->documents[0].number}));
  ASSERT_OK(writer->EraseDeletedTexts(Progress()));
  EXPECT_FALSE(std::filesystem::exists(prepared));
}

TEST_F(TextIndexFileTest, ARebuildGoesOnWithWhatIsSoundAndItsOwnAlone) {
  const auto writer = Open(storage::OpenMode::kWrite);
  const uint64_t next = FileOf(*writer).generation() + 1;
  const std::filesystem::path prepared =
      writer->version_folder() / StrCat("text-", next, ".sqlite");
  auto other = CreateSyntheticMemory(folder_ / "other", "exact");
  ASSERT_OK(other.status());
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(AddDocument((*other)->store(), {.n_tokens = 30}).status());
  }
  ASSERT_OK((*other)->UpdateTextIndex(Progress()));
  std::string flipped = *ReadFile(path_);
  flipped[flipped.size() - 2000] ^= 1;
  for (const std::string& left : {*ReadFile((*other)->text_index_path()), flipped,
                                  std::string("no database"), std::string()}) {
    ASSERT_OK(WriteFileAtomic(prepared, left));
    ASSERT_OK(writer->PrepareTextIndex(next, Progress()));
    const auto made = index::TextIndex::Open(prepared, index::TextIndex::Mode::kRead);
    ASSERT_OK(made.status());
    EXPECT_OK((*made)->Verify());
    EXPECT_EQ(*(*made)->Compare(TextOf(*writer->store().GetWindow(0))),
              index::TextIndex::Holding::kSame);
    EXPECT_EQ(*(*made)->NextSlot(), writer->Current()->next_slot);
  }
}

}  // namespace
}  // namespace fovea::memory
