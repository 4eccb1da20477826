// What a memory makes of a text index that is damaged, or of an earlier version.
#include "memory/text_index_file.h"

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
    EXPECT_FALSE(memory->text_index()->has_checksums());
  }
  const auto memory = Open(storage::OpenMode::kWrite);
  ASSERT_OK(memory->UpdateTextIndex(Progress()));
  EXPECT_TRUE(memory->text_index()->has_checksums());
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

}  // namespace
}  // namespace fovea::memory
