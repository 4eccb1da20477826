#include "index/text_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "tests/index/add_passages.h"
#include "tests/index/plain_text_index.h"

namespace fovea::index {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kAllowAll = [](uint64_t) { return true; };

class TextIndexTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "text_index_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "text %41?#.sqlite";  // characters that mean something in a URI
  }
  void TearDown() override {
    std::filesystem::permissions(folder_, std::filesystem::perms::owner_all,
                                 std::filesystem::perm_options::add);
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<TextIndex> Open(TextIndex::Mode mode) {
    absl::StatusOr<std::unique_ptr<TextIndex>> index = TextIndex::Open(path_, mode);
    EXPECT_TRUE(index.ok()) << index.status();
    return index.ok() ? *std::move(index) : nullptr;
  }
  std::unique_ptr<TextIndex> Writer() { return Open(TextIndex::Mode::kWrite); }
  std::unique_ptr<TextIndex> Reader() { return Open(TextIndex::Mode::kRead); }

  static std::vector<uint64_t> Slots(const TextIndex& index, std::string_view question,
                                     int n = 10) {
    absl::StatusOr<std::vector<PassageHit>> hits = index.Search(question, n, kAllowAll);
    EXPECT_TRUE(hits.ok()) << hits.status();
    std::vector<uint64_t> slots;
    if (hits.ok()) {
      for (const PassageHit& hit : *hits) slots.push_back(hit.slot_begin);
    }
    return slots;
  }

  // Runs `body` in a child process without root's rights; its result is the exit status.
  static int RunUnprivileged(const std::function<int()>& body) {
    const pid_t child = fork();
    if (child == 0) {
      if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(99);
      _exit(body());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

const PassageText kPassages[] = {
    {0, "Call me Ishmael. Some years ago I thought I would sail about and see the sea."},
    {100, "The white whale swam before him as the incarnation of all malicious agencies."},
    {200, "Captain Ahab nailed a gold doubloon to the mast for whoever saw the whale first."},
    {300, "Queequeg was a harpooner; his coffin saved Ishmael when the ship went down."},
    {400, "北京大学位于北京市海淀区。 大学有很多猫。"},
};

TEST_F(TextIndexTest, FindsThePassageThatAnswers) {
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, kPassages, 500).ok());
  EXPECT_THAT(Slots(*index, "What did the captain nail to the mast?"), ElementsAre(200));
  EXPECT_THAT(Slots(*index, "Ishmael's coffin"), ElementsAre(300, 0));
  EXPECT_THAT(Slots(*index, "whales"), ElementsAre(100, 200));  // stemmed
  EXPECT_THAT(Slots(*index, "helicopter"), IsEmpty());
  EXPECT_THAT(Slots(*index, "whale", 1), ElementsAre(100));
  EXPECT_THAT(Slots(*index, "whale", 0), IsEmpty());
}

TEST_F(TextIndexTest, ReadsEveryQuestionAsPlainWords) {
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, kPassages, 500).ok());
  for (const std::string_view question :
       {"\"white whale", "white AND (whale", "NEAR(white whale, 2)", "text : whale", "^whale *",
        "whale\" OR \"x", "-whale +", "{text} : whale", "whale; DROP TABLE passages; --",
        "w'hale''whale", "whale 😀", "\xff\xfewhale\x80"}) {
    EXPECT_THAT(Slots(*index, question), ElementsAre(100, 200)) << question;
  }
  for (const std::string_view question : {"", "\"", "()", "AND", "*", "😀", "\xff", ":", "''"}) {
    EXPECT_THAT(Slots(*index, question), ::testing::Not(::testing::Contains(100))) << question;
  }
}

TEST_F(TextIndexTest, FindsEastAsianText) {
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, kPassages, 500).ok());
  EXPECT_THAT(Slots(*index, "海淀区在哪里？"), ElementsAre(400));
  EXPECT_THAT(Slots(*index, "猫"), ElementsAre(400));
  EXPECT_THAT(Slots(*index, "京北"), IsEmpty());  // the characters, but never in this order
}

TEST_F(TextIndexTest, FindsAWordInWhateverFormItWasWritten) {
  auto index = Writer();
  const PassageText passages[] = {
      {0, "\u1102\u1161\u1107\u1175 \u1100\u1169\u110b\u1163\u11bc\u110b\u1175"},  // NFD Korean
      {10, "Con me\u0300o te\u0302n Mu\u031bo\u031b\u0301p."},                     // NFD Vietnamese
      {20, "The o\ufb03ce has a \ufb01ne of \ufb01fty \ufb02orins."},
      {30, "The in\u00adsur\u00adance number"},
      {40, "ＡＢＣ１２３"},
      {50, "ผู้อำนวยการชื่อสมชาย แมวชื่อดำ"},
      {60, "हिन्दी भाषा"},
  };
  ASSERT_TRUE(AddPassages(*index, passages, 70).ok());
  EXPECT_THAT(Slots(*index, "고양이"), ElementsAre(0));
  for (const std::string_view cat : {"Mướp", "MƯỚP", "Muop", "me\u0300o", "mèo", "meo"}) {
    EXPECT_THAT(Slots(*index, cat), ElementsAre(10)) << cat;
  }
  EXPECT_THAT(Slots(*index, "offices"), ElementsAre(20));
  EXPECT_THAT(Slots(*index, "\ufb02orin"), ElementsAre(20));
  EXPECT_THAT(Slots(*index, "insurance"), ElementsAre(30));
  EXPECT_THAT(Slots(*index, "abc123"), ElementsAre(40));
  EXPECT_THAT(Slots(*index, "แมว"), ElementsAre(50));
  EXPECT_THAT(Slots(*index, "วมแ"), IsEmpty());  // the characters, but never in this order
  EXPECT_THAT(Slots(*index, "हिन्दी"), ElementsAre(60));
  EXPECT_THAT(Slots(*index, "हन्दा"), IsEmpty());  // other vowels
}

TEST_F(TextIndexTest, ScoresAreBm25) {
  // Against the formula (k1 = 1.2, b = 0.75) in double, words without stems in common.
  std::mt19937 random(7);
  std::vector<std::string> texts;
  std::vector<PassageText> passages;
  for (int i = 0; i < 200; ++i) {
    std::string text;
    const int n_words = 5 + static_cast<int>(random() % 20);
    for (int w = 0; w < n_words; ++w) {
      const double u = static_cast<double>(random() % 1000) / 1000;
      text += "w" + std::to_string(static_cast<int>(u * u * 50)) + "q ";
    }
    texts.push_back(text);
  }
  double total_words = 0;
  std::vector<std::map<std::string, int>> counts(texts.size());
  std::map<std::string, int> n_passages_with;
  std::vector<int> lengths;
  for (size_t i = 0; i < texts.size(); ++i) {
    std::istringstream words(texts[i]);
    std::string word;
    int length = 0;
    while (words >> word) ++counts[i][word], ++length;
    for (const auto& [w, n] : counts[i]) ++n_passages_with[w];
    lengths.push_back(length);
    total_words += length;
    passages.push_back({i * 10, texts[i]});
  }
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, passages, 2000).ok());
  const std::vector<std::string> question = {"w3q", "w17q", "w40q", "w49q"};
  std::vector<std::pair<double, uint64_t>> want;
  for (size_t i = 0; i < texts.size(); ++i) {
    double score = 0;
    for (const std::string& word : question) {
      const double n = n_passages_with[word];
      const double idf = std::max(1e-6, std::log((200 - n + 0.5) / (n + 0.5)));
      const double tf = counts[i].count(word) ? counts[i][word] : 0;
      score += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths[i] / (total_words / 200)));
    }
    if (score > 0) want.push_back({-score, i * 10});
  }
  std::sort(want.begin(), want.end());
  auto hits = index->Search("w3q w17q w40q w49q", 1000, kAllowAll);
  ASSERT_TRUE(hits.ok());
  ASSERT_EQ(hits->size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR((*hits)[i].score, -want[i].first, 1e-9) << i;
  }
  auto few = index->Search("w3q w17q w40q w49q", 7, kAllowAll);
  ASSERT_TRUE(few.ok());
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ((*few)[i].slot_begin, (*hits)[i].slot_begin);
}

TEST_F(TextIndexTest, FiltersInsideTheSearch) {
  std::vector<PassageText> passages;
  for (uint64_t i = 0; i < 100; ++i) passages.push_back({i, "the same words everywhere"});
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, passages, 100).ok());
  auto hits = index->Search("words", 3, [](uint64_t slot) { return slot % 30 == 29; });
  ASSERT_TRUE(hits.ok()) << hits.status();
  ASSERT_EQ(hits->size(), 3u);
  EXPECT_EQ((*hits)[0].slot_begin, 29u);  // equal scores: by slot
  EXPECT_EQ((*hits)[1].slot_begin, 59u);
  EXPECT_EQ((*hits)[2].slot_begin, 89u);
}

TEST_F(TextIndexTest, AddMovesNextSlotAndSurvivesReopening) {
  {
    auto index = Writer();
    EXPECT_EQ(*index->NextSlot(), 0u);
    ASSERT_TRUE(AddPassages(*index, std::span(kPassages).first(2), 150).ok());
    EXPECT_EQ(*index->NextSlot(), 150u);
  }
  auto index = Writer();
  EXPECT_EQ(*index->NextSlot(), 150u);
  ASSERT_TRUE(AddPassages(*index, std::span(kPassages).subspan(2), 500).ok());
  ASSERT_TRUE(AddPassages(*index, {}, 600).ok());
  EXPECT_EQ(*index->NextSlot(), 600u);
  EXPECT_THAT(Slots(*index, "whale"), ElementsAre(100, 200));
  EXPECT_TRUE(index->Verify().ok());
}

TEST_F(TextIndexTest, TellsItsWindowsFromOthers) {
  const std::string text = "Call me Ishmael. The white whale.";
  const PassageText first{100, std::string_view(text).substr(0, 16)};
  const PassageText second{104, std::string_view(text).substr(17)};
  const WindowText window{100, 110, {first, second}};
  {
    auto index = Writer();
    ASSERT_TRUE(index->Add(std::span(&window, 1), 200).ok());
  }
  using Holding = TextIndex::Holding;
  for (const auto mode : {TextIndex::Mode::kRead, TextIndex::Mode::kWrite}) {
    const auto index = Open(mode);
    EXPECT_EQ(*index->Compare(window), Holding::kSame);
    EXPECT_EQ(*index->Compare({10, 100, {{10, "before"}}}), Holding::kNothing);
    EXPECT_EQ(*index->Compare({110, 120, {{110, "after"}}}), Holding::kNothing);
    // Other words, other passages, other slots.
    EXPECT_EQ(*index->Compare({100, 110, {first, {104, "the white whale."}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({100, 110, {{100, text}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({100, 110, {first, {105, second.text}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({100, 111, {first, second}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({99, 109, {{99, first.text}, {103, second.text}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({50, 101, {{50, text}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({109, 150, {{109, text}}}), Holding::kOther);
    EXPECT_EQ(*index->Compare({105, 106, {{105, text}}}), Holding::kOther);
  }
}

TEST_F(TextIndexTest, AddRefusesSlotsOutOfOrderAndChangesNothing) {
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, std::span(kPassages).first(2), 150).ok());
  const PassageText old[] = {{149, "too old"}};
  const PassageText beyond[] = {{200, "fine"}, {300, "beyond"}};
  const PassageText twice[] = {{200, "fine"}, {200, "again"}};
  EXPECT_TRUE(absl::IsInvalidArgument(AddPassages(*index, old, 300)));
  EXPECT_TRUE(absl::IsInvalidArgument(AddPassages(*index, beyond, 300)));
  EXPECT_TRUE(absl::IsInvalidArgument(AddPassages(*index, twice, 300)));
  EXPECT_TRUE(absl::IsInvalidArgument(AddPassages(*index, {}, 149)));
  EXPECT_TRUE(absl::IsInvalidArgument(AddPassages(*index, {}, uint64_t{1} << 63)));
  EXPECT_EQ(*index->NextSlot(), 150u);
  EXPECT_THAT(Slots(*index, "fine again old beyond"), IsEmpty());
  EXPECT_TRUE(index->Verify().ok());
}

TEST_F(TextIndexTest, ReadModeNeedsAFileAndCannotAdd) {
  EXPECT_TRUE(absl::IsNotFound(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::ofstream(path_).close();
  EXPECT_TRUE(absl::IsNotFound(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
  Writer();
  auto reader = Reader();
  EXPECT_TRUE(absl::IsFailedPrecondition(AddPassages(*reader, {}, 10)));
  EXPECT_TRUE(reader->Verify().ok());
}

TEST_F(TextIndexTest, ReaderSeesCommitsOfAWriterBesideIt) {
  auto writer = Writer();
  ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).first(2), 150).ok());
  auto reader = Reader();
  EXPECT_THAT(Slots(*reader, "whale"), ElementsAre(100));
  ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).subspan(2), 500).ok());
  EXPECT_THAT(Slots(*reader, "whale"), ElementsAre(100, 200));
  EXPECT_EQ(*reader->NextSlot(), 500u);
  EXPECT_TRUE(reader->Verify().ok()) << reader->Verify();
}

TEST_F(TextIndexTest, AReaderGoesOnWithTheFileThatTakesThePlaceOfItsOwn) {
  auto writer = Writer();
  ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).first(2), 150).ok());
  auto reader = Reader();
  EXPECT_THAT(Slots(*reader, "whale"), ElementsAre(100));
  for (const bool is_closed : {false, true}) {
    if (is_closed) writer.reset();
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::filesystem::remove(std::filesystem::path(path_) += suffix);
    }
    // What is gone and not there again is the best that there is.
    EXPECT_THAT(Slots(*reader, "Ishmael"), ::testing::Contains(0));
    writer = Writer();
    ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).first(3), 250).ok());
    EXPECT_THAT(Slots(*reader, "whale"), ElementsAre(100, 200));
    EXPECT_EQ(*reader->NextSlot(), 250u);
    ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).subspan(3), 500).ok());
    EXPECT_EQ(*reader->NextSlot(), 500u);
    EXPECT_TRUE(reader->Verify().ok()) << reader->Verify();
  }
}

TEST_F(TextIndexTest, ReaderProcessesNeverSeeHalfACommit) {
  // Each commit adds three passages. The reader is forked before SQLite is open here, which does
  // not bear being forked.
  const pid_t child = fork();
  if (child == 0) {
    auto index = TextIndex::Open(path_, TextIndex::Mode::kRead);
    while (absl::IsNotFound(index.status())) {
      usleep(100);
      index = TextIndex::Open(path_, TextIndex::Mode::kRead);
    }
    if (!index.ok()) _exit(1);
    for (int i = 0; i < 400; ++i) {
      auto hits = (*index)->Search("word", 100'000, kAllowAll);
      if (!hits.ok()) _exit(2);
      if (hits->size() % 3 != 0) _exit(3);
      auto next_slot = (*index)->NextSlot();
      if (!next_slot.ok() || *next_slot < hits->size()) _exit(4);
      if (hits->size() == 300) _exit(0);
    }
    _exit(0);
  }
  auto writer = Writer();
  for (uint64_t i = 0; i < 100; ++i) {
    const PassageText passages[] = {{3 * i, "word"}, {3 * i + 1, "word"}, {3 * i + 2, "word"}};
    ASSERT_TRUE(AddPassages(*writer, passages, 3 * i + 3).ok());
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(TextIndexTest, ServesManyThreads) {
  auto index = Writer();
  ASSERT_TRUE(AddPassages(*index, std::span(kPassages).first(2), 150).ok());
  std::vector<std::thread> threads;
  std::atomic<int> n_wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        auto hits = index->Search("malicious whale", 5, kAllowAll);
        if (!hits.ok() || hits->empty() || (*hits)[0].slot_begin != 100) ++n_wrong;
      }
    });
  }
  for (uint64_t i = 150; i < 200; ++i) {
    const PassageText passage[] = {{i, "filler text"}};
    EXPECT_TRUE(AddPassages(*index, passage, i + 1).ok());
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_wrong, 0);
}

TEST_F(TextIndexTest, ReadsInAReadOnlyFolder) {
  {
    auto writer = Writer();
    ASSERT_TRUE(AddPassages(*writer, kPassages, 500).ok());
  }
  ASSERT_FALSE(std::filesystem::exists(path_.native() + "-wal"));  // closed cleanly
  std::filesystem::permissions(folder_, std::filesystem::perms(0555));
  EXPECT_EQ(RunUnprivileged([&] {
              auto index = TextIndex::Open(path_, TextIndex::Mode::kRead);
              if (!index.ok()) return 1;
              if (Slots(**index, "whale") != std::vector<uint64_t>{100, 200}) return 2;
              if (!(*index)->Verify().ok()) return 3;
              return 0;
            }),
            0);
}

TEST_F(TextIndexTest, ReadsTheWalOfAKilledWriterInAReadOnlyFolder) {
  // The child dies with its commit in the WAL; a copy without the -shm file stands for another
  // machine's read-only view of it.
  if (const pid_t child = fork(); child == 0) {
    auto writer = TextIndex::Open(path_, TextIndex::Mode::kWrite);
    if (!writer.ok() || !AddPassages(**writer, kPassages, 500).ok()) _exit(1);
    _exit(0);  // no destructor, no checkpoint
  } else {
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 0);
  }
  ASSERT_GT(std::filesystem::file_size(path_.native() + "-wal"), 0u);
  std::filesystem::remove(path_.native() + "-shm");
  std::filesystem::permissions(folder_, std::filesystem::perms(0555));
  EXPECT_EQ(RunUnprivileged([&] {
              auto index = TextIndex::Open(path_, TextIndex::Mode::kRead);
              if (!index.ok()) return 1;
              if ((*index)->NextSlot().value_or(0) != 500) return 2;
              if (Slots(**index, "whale") != std::vector<uint64_t>{100, 200}) return 3;
              return 0;
            }),
            0);
}

TEST_F(TextIndexTest, AReaderWithoutLocksNoticesNewContent) {
  {
    auto writer = Writer();
    ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).first(2), 150).ok());
  }
  std::filesystem::permissions(folder_, std::filesystem::perms(0555));
  int to_child[2], to_parent[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(to_parent), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && setuid(65534) != 0) _exit(99);
    auto index = TextIndex::Open(path_, TextIndex::Mode::kRead);
    if (!index.ok()) _exit(1);
    if (Slots(**index, "whale") != std::vector<uint64_t>{100}) _exit(2);
    char byte = 0;
    if (write(to_parent[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1) _exit(3);
    if (Slots(**index, "whale") != std::vector<uint64_t>{100, 200}) _exit(4);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(to_parent[0], &byte, 1), 1);
  std::filesystem::permissions(folder_, std::filesystem::perms(0755));
  {
    auto writer = Writer();
    ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).subspan(2), 500).ok());
  }
  std::filesystem::permissions(folder_, std::filesystem::perms(0555));
  ASSERT_EQ(write(to_child[1], &byte, 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(TextIndexTest, OpenRefusesWhatIsNoTextIndex) {
  std::ofstream(path_) << std::string(5000, 'x');
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kWrite).status()));
  EXPECT_TRUE(absl::IsDataLoss(TextIndex::Open(path_, TextIndex::Mode::kRead).status()));
  std::filesystem::remove(path_);

  sqlite3* db = nullptr;  // somebody else's database
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "CREATE TABLE t(x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  const std::string before = *ReadFile(path_);
  const absl::Status status = TextIndex::Open(path_, TextIndex::Mode::kWrite).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(*ReadFile(path_), before);  // left alone
}

TEST_F(TextIndexTest, OpenRefusesAnotherFormatVersion) {
  MakePlainTextIndex(path_, 99, {}, 0);
  const absl::Status status = TextIndex::Open(path_, TextIndex::Mode::kRead).status();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("version 99"));
}

TEST_F(TextIndexTest, DamageIsAStatusNeverACrash) {
  {
    auto writer = Writer();
    std::vector<std::string> texts;
    std::vector<PassageText> passages;
    for (int i = 0; i < 300; ++i) {
      texts.push_back("passage number n" + std::to_string(i * 7919) + " whale x" +
                      std::to_string(i % 17));
    }
    for (size_t i = 0; i < texts.size(); ++i) passages.push_back({i, texts[i]});
    ASSERT_TRUE(AddPassages(*writer, passages, 300).ok());
  }
  const std::string sound = *ReadFile(path_);
  std::mt19937 random(5);
  int n_refused = 0;
  for (int round = 0; round < 120; ++round) {
    std::string bytes = sound;
    if (round % 3 == 0) {
      bytes.resize(random() % bytes.size());
    } else {
      const size_t begin = random() % bytes.size();
      const size_t n = std::min<size_t>(1 + random() % 64, bytes.size() - begin);
      for (size_t i = 0; i < n; ++i) bytes[begin + i] = static_cast<char>(random());
    }
    ASSERT_TRUE(WriteFileAtomic(path_, bytes).ok());
    std::filesystem::remove(path_.native() + "-wal");
    std::filesystem::remove(path_.native() + "-shm");
    auto index = TextIndex::Open(path_, TextIndex::Mode::kRead);
    if (!index.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(index.status()) || absl::IsNotFound(index.status()))
          << index.status();
      ++n_refused;
      continue;
    }
    (void)(*index)->Search("whale number x3", 10, kAllowAll);
    (void)(*index)->NextSlot();
    const absl::Status status = (*index)->Verify();
    if (!status.ok()) {
      ++n_refused;
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    }
  }
  EXPECT_EQ(n_refused, 120);
}

TEST_F(TextIndexTest, AFullDiskLeavesTheLastCommit) {
  auto writer = Writer();
  ASSERT_TRUE(AddPassages(*writer, std::span(kPassages).first(2), 150).ok());
  writer = nullptr;
  const int result = RunUnprivileged([] { return 0; });  // forks work here
  ASSERT_EQ(result, 0);
  // A file size limit stands for a full disk: writes fail in the middle of a commit.
  const pid_t child = fork();
  if (child == 0) {
    auto index = TextIndex::Open(path_, TextIndex::Mode::kWrite);
    if (!index.ok()) _exit(1);
    const rlimit limit{64 << 10, 64 << 10};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    std::vector<std::string> texts;
    for (int i = 0; i < 20'000; ++i) texts.push_back("w" + std::to_string(i * 7919));
    std::vector<PassageText> passages;
    for (size_t i = 0; i < texts.size(); ++i) passages.push_back({1000 + i, texts[i]});
    if (AddPassages(**index, passages, 100'000).ok()) _exit(2);
    if ((*index)->NextSlot().value_or(0) != 150) _exit(3);
    if (Slots(**index, "whale") != std::vector<uint64_t>{100}) _exit(4);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  writer = Writer();
  EXPECT_EQ(*writer->NextSlot(), 150u);
  EXPECT_TRUE(writer->Verify().ok());
  EXPECT_TRUE(AddPassages(*writer, std::span(kPassages).subspan(2), 500).ok());
}

TEST_F(TextIndexTest, AddWaitsForTheLockThenSaysUnavailable) {
  auto writer = Writer();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  std::thread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
  });
  EXPECT_TRUE(AddPassages(*writer, kPassages, 500).ok());  // waited
  release.join();
  sqlite3_close(db);
}

}  // namespace
}  // namespace fovea::index
