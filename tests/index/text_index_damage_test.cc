// What is on disk of a text index is what was written, or an error: flipped bits, kills, old files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "index/text_index.h"
#include "tests/index/add_passages.h"
#include "tests/index/plain_text_index.h"

namespace fovea::index {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kAllowAll = [](uint64_t) { return true; };
constexpr int64_t kPageBytes = 4096;

std::string Text(uint64_t i) {
  return absl::StrCat("passage n", i * 7919, " whale x", i % 17, " y", i % 401);
}

// Passages [begin, end) in commits of `step`.
absl::Status AddTexts(TextIndex* index, uint64_t begin, uint64_t end, uint64_t step) {
  for (; begin < end; begin += step) {
    std::vector<std::string> texts;
    for (uint64_t i = begin; i < begin + step; ++i) texts.push_back(Text(i));
    std::vector<PassageText> passages;
    for (uint64_t i = 0; i < step; ++i) passages.push_back({begin + i, texts[i]});
    RETURN_IF_ERROR(AddPassages(*index, passages, begin + step));
  }
  return absl::OkStatus();
}

// What is asked of an index, in words; nothing where it says that it is damaged.
std::optional<std::string> Answers(const TextIndex& index) {
  std::string answers;
  for (const char* question : {"whale x3", "n7919", "passage y400", "n2367781 x5 y77"}) {
    const auto hits = index.Search(question, 20, kAllowAll);
    if (!hits.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(hits.status())) << hits.status();
      return std::nullopt;
    }
    for (const PassageHit& hit : *hits)
      absl::StrAppend(&answers, hit.slot_begin, " ", hit.score, ";");
  }
  const auto next_slot = index.NextSlot();
  if (!next_slot.ok()) return std::nullopt;
  return absl::StrCat(answers, *next_slot);
}

class TextIndexDamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "text_damage_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "text.sqlite";
    wal_ = folder_ / "text.sqlite-wal";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<TextIndex> Open(TextIndex::Mode mode) {
    absl::StatusOr<std::unique_ptr<TextIndex>> index = TextIndex::Open(path_, mode);
    EXPECT_TRUE(index.ok()) << index.status();
    return index.ok() ? *std::move(index) : nullptr;
  }
  std::unique_ptr<TextIndex> Writer() { return Open(TextIndex::Mode::kWrite); }
  std::unique_ptr<TextIndex> Reader() { return Open(TextIndex::Mode::kRead); }

  // The files as they are given, nothing else.
  void Put(const std::string& database, const std::optional<std::string>& wal) {
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::filesystem::remove(path_.native() + suffix);
    }
    ASSERT_TRUE(WriteFileAtomic(path_, database).ok());
    if (wal.has_value()) {
      ASSERT_TRUE(WriteFileAtomic(wal_, *wal).ok());
    }
  }
  // In place, as a disk does it: who has the file open has it, too.
  static void FlipInPlace(const std::filesystem::path& path, size_t at, int bit) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1 << bit));
    ASSERT_TRUE(file.good());
  }

  // Adds passages in a process that ends without closing anything.
  void AddAndEnd(uint64_t n_texts, uint64_t step) {
    const pid_t child = fork();
    if (child == 0) {
      const auto writer = TextIndex::Open(path_, TextIndex::Mode::kWrite);
      if (!writer.ok()) _exit(1);
      const uint64_t begin = (*writer)->NextSlot().value_or(0);
      _exit(AddTexts(writer->get(), begin, begin + n_texts, step).ok() ? 0 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_EQ(WEXITSTATUS(status), 0);
  }

  // The open index, or nothing where opening it says that it is damaged.
  std::unique_ptr<TextIndex> OpenOrDamaged(TextIndex::Mode mode) {
    absl::StatusOr<std::unique_ptr<TextIndex>> index = TextIndex::Open(path_, mode);
    if (index.ok()) return *std::move(index);
    EXPECT_TRUE(absl::IsDataLoss(index.status())) << index.status();
    return nullptr;
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
  std::filesystem::path wal_;
};

TEST_F(TextIndexDamageTest, AFlippedBitOfAnyPageIsToldAndNeverAnswers) {
  std::string whole;
  {
    auto writer = Writer();
    // Many commits: merged segments leave pages that are free.
    ASSERT_TRUE(AddTexts(writer.get(), 0, 4000, 50).ok());
    whole = *Answers(*writer);
  }
  const std::string sound = *ReadFile(path_);
  ASSERT_EQ(sound.size() % kPageBytes, 0u);
  std::mt19937 random(11);
  std::vector<size_t> places;
  for (size_t page = 0; page < sound.size(); page += kPageBytes) {
    places.push_back(page + random() % kPageBytes);
    places.push_back(page + kPageBytes - 1 - random() % 8);  // of its checksum
  }
  for (size_t i = 0; i < 100; ++i) places.push_back(i);  // of the header
  int n_searches_refused = 0;
  for (const size_t at : places) {
    SCOPED_TRACE(absl::StrCat("byte ", at));
    std::string bytes = sound;
    bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
    for (const auto mode : {TextIndex::Mode::kRead, TextIndex::Mode::kWrite}) {
      Put(bytes, std::nullopt);
      const auto index = OpenOrDamaged(mode);
      if (index == nullptr) continue;
      const std::optional<std::string> answers = Answers(*index);
      if (answers.has_value()) {
        EXPECT_EQ(*answers, whole);
      } else {
        ++n_searches_refused;
      }
      const absl::Status status = index->Verify();
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("does not match its checksum"));
    }
  }
  EXPECT_GT(n_searches_refused, 20);
}

TEST_F(TextIndexDamageTest, AFileThatIsCutOffAnywhereIsToldAndNeverAnswers) {
  {
    auto writer = Writer();
    ASSERT_TRUE(AddTexts(writer.get(), 0, 400, 100).ok());
  }
  const std::string whole = *Answers(*Reader());
  const std::string sound = *ReadFile(path_);
  const size_t last = sound.size() - kPageBytes;
  for (const size_t size : {sound.size() - 1, sound.size() - 100, sound.size() - 2000, last + 100,
                            last, last - 10, size_t{kPageBytes} + 7}) {
    SCOPED_TRACE(size);
    ASSERT_TRUE(WriteFileAtomic(path_, sound.substr(0, size)).ok());
    const auto reader = TextIndex::Open(path_, TextIndex::Mode::kRead);
    if (!reader.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(reader.status())) << reader.status();
      continue;
    }
    EXPECT_TRUE(absl::IsDataLoss((*reader)->VerifyPages()) ||
                absl::IsDataLoss((*reader)->Verify()));
    const std::optional<std::string> answers = Answers(**reader);
    EXPECT_TRUE(!answers.has_value() || *answers == whole);
  }
}

TEST_F(TextIndexDamageTest, WhatIsNoFileIsNotOpened) {
  std::filesystem::create_directories(path_);
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kWrite).status()));
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kWrite).status()));
}

TEST_F(TextIndexDamageTest, EveryBitOfTheHeaderCounts) {
  {
    auto writer = Writer();
    ASSERT_TRUE(AddTexts(writer.get(), 0, 10, 10).ok());
  }
  const std::string sound = *ReadFile(path_);
  for (size_t bit = 0; bit < 800; ++bit) {
    std::string bytes = sound;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    Put(bytes, std::nullopt);
    EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kRead).status())) << bit;
  }
}

TEST_F(TextIndexDamageTest, AFlippedBitInTheWalOfAKilledWriterIsTold) {
  AddAndEnd(300, 50);
  const std::string database = *ReadFile(path_);
  const std::string sound = *ReadFile(wal_);
  ASSERT_GT(sound.size(), 20u * (kPageBytes + 24));
  Put(database, sound);
  EXPECT_EQ(*Reader()->NextSlot(), 300u);
  std::mt19937 random(12);
  std::vector<size_t> places;
  for (size_t i = 0; i < 32; ++i) places.push_back(i);  // the header
  for (size_t frame = 32; frame < sound.size(); frame += 24 + kPageBytes) {
    for (size_t i = 0; i < 24; ++i) places.push_back(frame + i);
    places.push_back(frame + 24 + random() % kPageBytes);
  }
  for (const size_t at : places) {
    std::string bytes = sound;
    bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
    for (const auto mode : {TextIndex::Mode::kRead, TextIndex::Mode::kWrite}) {
      Put(database, bytes);
      const auto index = TextIndex::Open(path_, mode);
      EXPECT_TRUE(absl::IsDataLoss(index.status())) << "byte " << at << ": " << index.status();
    }
  }
}

TEST_F(TextIndexDamageTest, EveryEndThatAProcessCanLeaveOfAWalIsSound) {
  AddAndEnd(300, 50);
  const std::string old_wal = *ReadFile(wal_);
  AddAndEnd(20, 10);  // begins a WAL of its own
  const std::string database = *ReadFile(path_);
  const std::string wal = *ReadFile(wal_);
  ASSERT_LT(wal.size(), old_wal.size());
  const auto next_slot = [&](const std::string& bytes) {
    Put(database, bytes);
    const auto reader = TextIndex::Open(path_, TextIndex::Mode::kRead);
    EXPECT_TRUE(reader.ok()) << reader.status();
    if (!reader.ok()) return uint64_t{0};
    EXPECT_TRUE((*reader)->Verify().ok()) << (*reader)->Verify();
    return *(*reader)->NextSlot();
  };
  // Frames of the WAL before lie behind its own.
  EXPECT_EQ(next_slot(wal + old_wal.substr(wal.size())), 320u);
  // Cut off between commits, in the middle of one, of a frame, of the header.
  for (size_t size = 0; size <= wal.size(); size += 24 + kPageBytes) {
    for (const size_t more : {0, 10, 32, 40, 2000}) {
      if (size + more > wal.size()) continue;
      EXPECT_THAT(next_slot(wal.substr(0, size + more)), ::testing::AnyOf(300u, 310u, 320u));
    }
  }
  // A frame of the WAL before in the middle of it is none that anybody left.
  std::string mixed = wal;
  mixed.replace(32, 24 + kPageBytes, old_wal, 32, 24 + kPageBytes);
  Put(database, mixed);
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
}

TEST_F(TextIndexDamageTest, WhatIsFlippedUnderOpenConnectionsReachesNobody) {
  std::mt19937 random(13);
  int n_refused = 0;
  for (int round = 0; round < 40; ++round) {
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::filesystem::remove(path_.native() + suffix);
    }
    auto writer = Writer();
    ASSERT_TRUE(AddTexts(writer.get(), 0, 300, 50).ok());
    const std::string whole = *Answers(*writer);
    // All is in the WAL; nobody recovers it, as long as the writer lives.
    const size_t size = std::filesystem::file_size(wal_);
    FlipInPlace(wal_, 32 + random() % (size - 32), static_cast<int>(random() % 8));
    if (const auto reader = OpenOrDamaged(TextIndex::Mode::kRead); reader != nullptr) {
      const std::optional<std::string> answers = Answers(*reader);
      if (answers.has_value()) {
        EXPECT_EQ(*answers, whole);
      } else {
        ++n_refused;
      }
    }
    // Closing it would put the frames into the main file, each with a right checksum.
    writer.reset();
    const auto later = OpenOrDamaged(TextIndex::Mode::kRead);
    if (later == nullptr) continue;
    const std::optional<std::string> answers = Answers(*later);
    if (answers.has_value()) {
      EXPECT_EQ(*answers, whole) << "round " << round;
    }
  }
  EXPECT_GT(n_refused, 5);
}

// The moments that a kill hardly ever meets: the WAL is begun anew over the frames of an earlier
// one, and the process ends in the middle of a frame. A limit on the size of files ends the writing
// there.
TEST_F(TextIndexDamageTest, AWalThatIsBegunAnewMayEndAnywhere) {
  constexpr size_t kWalHeaderBytes = 32, kFrameBytes = 24 + kPageBytes;
  for (const size_t limit :
       {kWalHeaderBytes + 10, kWalHeaderBytes + 24, kWalHeaderBytes + 1000,
        kWalHeaderBytes + kFrameBytes, kWalHeaderBytes + kFrameBytes + 24 + 512,
        kWalHeaderBytes + 2 * kFrameBytes + 4000}) {
    SCOPED_TRACE(limit);
    std::filesystem::remove(path_);
    std::filesystem::remove(wal_);
    std::filesystem::remove(path_.string() + "-shm");
    const pid_t child = fork();
    if (child == 0) {
      auto writer = TextIndex::Open(path_, TextIndex::Mode::kWrite);
      if (!writer.ok()) _exit(1);
      // Until a checkpoint has put all of the WAL into the database: it stays as long as it is, and
      // the next commit begins it anew.
      uint64_t next = 0;
      const uintmax_t n_bytes = std::filesystem::file_size(path_);
      while (std::filesystem::file_size(path_) == n_bytes) {
        if (!AddTexts(writer->get(), next, next + 200, 200).ok()) _exit(2);
        next += 200;
      }
      std::ofstream(folder_ / "next") << next;
      signal(SIGXFSZ, SIG_IGN);
      const rlimit small{limit, RLIM_INFINITY};
      if (setrlimit(RLIMIT_FSIZE, &small) != 0) _exit(4);
      _exit(AddTexts(writer->get(), next, next + 200, 200).ok() ? 5 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_EQ(WEXITSTATUS(status), 0);
    uint64_t next = 0;
    std::ifstream(folder_ / "next") >> next;
    for (const auto mode : {TextIndex::Mode::kRead, TextIndex::Mode::kWrite}) {
      const auto index = TextIndex::Open(path_, mode);
      ASSERT_TRUE(index.ok()) << index.status();
      EXPECT_TRUE((*index)->Verify().ok()) << (*index)->Verify();
      EXPECT_EQ(*(*index)->NextSlot(), next);
    }
  }
}

TEST_F(TextIndexDamageTest, AKillAtAnyMomentLeavesASoundIndex) {
  std::mt19937 random(14);
  uint64_t n_before = 0;
  for (int round = 0; round < 60; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      auto writer = TextIndex::Open(path_, TextIndex::Mode::kWrite);
      if (!writer.ok()) _exit(1);
      const uint64_t begin = (*writer)->NextSlot().value_or(1);
      _exit(AddTexts(writer->get(), begin, begin + 100'000, 20).ok() ? 0 : 2);
    }
    usleep(static_cast<useconds_t>(1000 + random() % 60'000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "round " << round << ": exit " << WEXITSTATUS(status);
    if (!std::filesystem::exists(path_)) continue;
    const auto reader = TextIndex::Open(path_, TextIndex::Mode::kRead);
    if (absl::IsNotFound(reader.status())) continue;  // killed before it made the tables
    ASSERT_TRUE(reader.ok()) << "round " << round << ": " << reader.status();
    ASSERT_TRUE((*reader)->Verify().ok()) << (*reader)->Verify();
    const uint64_t next_slot = *(*reader)->NextSlot();
    EXPECT_EQ(next_slot % 20, 0u);
    EXPECT_GE(next_slot, n_before);
    EXPECT_EQ((*reader)->Search("whale", 1'000'000, kAllowAll)->size(), next_slot);
    n_before = next_slot;
  }
  EXPECT_GT(n_before, 0u);
  EXPECT_TRUE(Writer()->is_newest_version());
}

TEST_F(TextIndexDamageTest, AFileOfAnEarlierVersionIsReadAndAddedToAsItIs) {
  const PassageText old[] = {{0, "the white whale"}, {10, "a gold doubloon"}};
  MakePlainTextIndex(path_, kWordsVersion, old, 20);
  EXPECT_FALSE(Reader()->is_newest_version());
  {
    auto writer = Writer();
    EXPECT_FALSE(writer->is_newest_version());
    const PassageText more[] = {{20, "another whale"}};
    ASSERT_TRUE(AddPassages(*writer, more, 30).ok());
    EXPECT_TRUE(writer->Verify().ok()) << writer->Verify();
  }
  auto reader = Reader();
  EXPECT_FALSE(reader->is_newest_version());
  EXPECT_TRUE(reader->Verify().ok()) << reader->Verify();
  const auto hits = reader->Search("whales", 10, kAllowAll);
  ASSERT_TRUE(hits.ok()) << hits.status();
  EXPECT_EQ(hits->size(), 2u);
  EXPECT_EQ(*reader->NextSlot(), 30u);
}

}  // namespace
}  // namespace fovea::index
