// The program where its disk fails it: full, read-only, damaged. Every command ends with a message
// that says what to do, nothing that was reported as stored is lost, and afterwards it all goes on.
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/cleanup/cleanup.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/run_fovea.h"
#include "tests/memory/tiny_model.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FaultTest : public ProgramTest {
 protected:
  void SetUp() override {
    memory_ = Path("memory");
    const std::string old = Write("old.txt", Words(1, 70000));
    later_ = {Write("later.txt", Words(3, 20000)), Write("last.txt", Words(4, 60000))};
    const std::string older = Write("older.txt", Words(2, 9000));
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/tiny", /*seed=*/7, 2048).ok());
    // A sealed segment with index files, and a growing one.
    const ProgramResult made =
        Fovea({"ingest", "--memory", memory_, "--model", "tiny", "--mem-layers", "1,2", "--window",
               "512", "--index", "IVF16,SQ8", "--quiet", old, older});
    ASSERT_EQ(made.code, 0) << made.err;
  }

  ProgramResult Command(Arguments arguments) const {
    arguments.insert(arguments.end(), {"--memory", memory_});
    return Fovea(arguments);
  }
  ProgramResult Ingest(const std::vector<std::string>& paths) const {
    Arguments arguments = {"ingest", "--json", "--quiet"};
    arguments.insert(arguments.end(), paths.begin(), paths.end());
    return Command(arguments);
  }
  ProgramResult Ask() const {
    return Command({"ask", "otter", "--json", "--quiet", "--max-tokens", "3"});
  }
  std::map<std::string, std::string> IdsBySource() const {
    std::map<std::string, std::string> ids;
    const ProgramResult list = Command({"docs", "list", "--json"});
    EXPECT_EQ(list.code, 0) << list.err;
    for (const std::string& line : Lines(list.out)) {
      const Json document = Json::parse(line);
      ids[document["source"]] = document["id"];
    }
    return ids;
  }

  // Every command that writes; `expect_failure` sees the results of those that failed.
  template <typename ExpectFailure>
  void RunWriters(ExpectFailure expect_failure) {
    const auto run = [&](const std::string& name, const ProgramResult& result) {
      SCOPED_TRACE(name);
      if (result.code == 0) return;
      failed_.insert(name);
      EXPECT_EQ(result.code, 1);
      expect_failure(result);
    };
    const auto ids = IdsBySource();
    const ProgramResult ingest = Ingest(later_);
    run("ingest", ingest);
    // Where nothing was stored there is no result.
    const Json result = ingest.out.empty() ? Json{{"documents", Json::array()}} : ingest.json();
    for (const Json& document : result["documents"]) {
      if (document["status"] != "failed") stored_.insert(document["source"].get<std::string>());
    }
    const ProgramResult removed = Command({"docs", "delete", "--json", ids.at(Path("older.txt"))});
    run("docs delete", removed);
    if (!removed.out.empty()) deleted_.insert(Path("older.txt"));
    run("rebuild", Command({"rebuild", "--quiet", "--index", "IVF16,SQ4"}));
    run("rebuild --reencode", Command({"rebuild", "--quiet", "--reencode"}));
    run("verify --repair", Command({"verify", "--quiet", "--repair"}));
    // Readers need no room but for their results and what SQLite shares between processes.
    confinement_.max_file_bytes = std::max(confinement_.max_file_bytes, rlim_t{64} << 10);
    const ProgramResult ask = Ask();
    EXPECT_EQ(ask.code, 0) << ask.err;
    run("verify", Command({"verify", "--quiet"}));
    failed_.erase("verify");  // what SQLite shares between processes may need a page
  }

  // Whatever was reported is so, and the memory takes what it could not take before.
  void ExpectAllGoesOn() {
    const ProgramResult sound = Command({"verify", "--quiet"});
    EXPECT_EQ(sound.code, 0) << sound.err << sound.out;
    const auto ids = IdsBySource();
    for (const std::string& source : stored_) EXPECT_TRUE(ids.contains(source)) << source;
    for (const std::string& source : deleted_) EXPECT_FALSE(ids.contains(source)) << source;
    EXPECT_TRUE(ids.contains(Path("old.txt")));
    const ProgramResult ingest = Ingest(later_);
    EXPECT_EQ(ingest.code, 0) << ingest.err;
    const ProgramResult rebuild = Command({"rebuild", "--quiet", "--index", "IVF16,SQ4"});
    EXPECT_EQ(rebuild.code, 0) << rebuild.err;
    for (const std::string& path : later_) {
      const ProgramResult show = Command({"docs", "show", IdsBySource().at(path)});
      EXPECT_EQ(show.out, Slurp(path));
    }
    const ProgramResult verify = Command({"verify", "--quiet"});
    EXPECT_EQ(verify.code, 0) << verify.err << verify.out;
  }

  std::string memory_;
  std::vector<std::string> later_;
  std::set<std::string> failed_;   // commands
  std::set<std::string> stored_;   // sources
  std::set<std::string> deleted_;  // sources
};

TEST_F(FaultTest, AFileSizeLimitEndsWritersWithAMessage) {
  const std::string original = memory_;
  for (const rlim_t limit_bytes : {rlim_t{1} << 10, rlim_t{64} << 10, rlim_t{1} << 20}) {
    SCOPED_TRACE(limit_bytes);
    memory_ = Path("copy");
    fs::copy(original, memory_, fs::copy_options::recursive);
    stored_.clear();
    deleted_.clear();
    confinement_.max_file_bytes = limit_bytes;
    RunWriters([&](const ProgramResult& result) {
      EXPECT_THAT(result.err,
                  AllOf(HasSubstr(memory_), HasSubstr("File too large"), HasSubstr("ulimit -f")));
    });
    confinement_ = {};
    ExpectAllGoesOn();
    fs::remove_all(memory_);
  }
  EXPECT_THAT(failed_, ::testing::UnorderedElementsAre("ingest", "docs delete", "rebuild",
                                                       "rebuild --reencode", "verify --repair"));
}

TEST_F(FaultTest, AFullDiskEndsWritersWithAMessage) {
  const fs::path disk = folder_ / "disk";
  fs::create_directory(disk);
  if (mount("none", disk.c_str(), "tmpfs", 0, "size=64m") != 0) {
    GTEST_SKIP() << "no right to mount a small disk here; AFileSizeLimitEndsWritersWithAMessage "
                    "tests the same messages";
  }
  const absl::Cleanup unmount = [&] { umount2(disk.c_str(), MNT_DETACH); };
  const std::string original = memory_;
  memory_ = (disk / "memory").string();
  for (const uint64_t free_bytes : {uint64_t{0}, uint64_t{200} << 10, uint64_t{4} << 20}) {
    SCOPED_TRACE(free_bytes);
    fs::copy(original, memory_, fs::copy_options::recursive);
    stored_.clear();
    deleted_.clear();
    {
      std::ofstream filler(disk / "filler", std::ios::binary);
      const uint64_t filler_bytes = fs::space(disk).available - free_bytes;
      filler << std::string(filler_bytes, 'x');
      ASSERT_TRUE(filler.flush());
    }
    RunWriters([&](const ProgramResult& result) {
      EXPECT_THAT(result.err, AllOf(HasSubstr(memory_),
                                    AnyOf(HasSubstr("free space"), HasSubstr("free some space"))));
    });
    fs::remove(disk / "filler");
    ExpectAllGoesOn();
    fs::remove_all(memory_);
  }
  EXPECT_THAT(failed_, ::testing::UnorderedElementsAre("ingest", "docs delete", "rebuild",
                                                       "rebuild --reencode", "verify --repair"));
}

TEST_F(FaultTest, AReadOnlyFolderAnswersAndTakesNothing) {
  // Root writes everywhere, so the program gives its rights up.
  confinement_.as_nobody = geteuid() == 0;
  fs::permissions(folder_, fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
  if (confinement_.as_nobody && Fovea({"--version"}).code != 0) {
    GTEST_SKIP() << FOVEA_PROGRAM << " cannot be run without the rights of root";
  }
  const auto set_writable = [this](bool writable) {
    std::vector<fs::path> paths = {memory_};
    for (const auto& entry : fs::recursive_directory_iterator(memory_)) {
      paths.push_back(entry.path());
    }
    for (const fs::path& path : paths) {
      fs::permissions(path, fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
      fs::permissions(path, fs::perms::owner_write,
                      writable ? fs::perm_options::add : fs::perm_options::remove);
    }
  };
  set_writable(false);
  RunWriters([&](const ProgramResult& result) {
    EXPECT_THAT(result.err, AllOf(HasSubstr(memory_), HasSubstr("Permission denied"),
                                  HasSubstr("permissions")));
  });
  EXPECT_EQ(failed_.size(), 5u);
  set_writable(true);
  confinement_ = {};
  ExpectAllGoesOn();
}

TEST_F(FaultTest, AReadOnlyFileSystemAnswersAndTakesNothing) {
  const fs::path disk = folder_ / "disk";
  fs::create_directory(disk);
  if (mount("none", disk.c_str(), "tmpfs", 0, "size=64m") != 0) {
    GTEST_SKIP() << "no right to mount a disk here; AReadOnlyFolderAnswersAndTakesNothing tests "
                    "the same commands";
  }
  const absl::Cleanup unmount = [&] { umount2(disk.c_str(), MNT_DETACH); };
  fs::copy(memory_, disk / "memory", fs::copy_options::recursive);
  memory_ = (disk / "memory").string();
  ASSERT_EQ(mount("none", disk.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  RunWriters([&](const ProgramResult& result) {
    EXPECT_THAT(result.err, AllOf(HasSubstr(memory_), HasSubstr("Read-only file system"),
                                  HasSubstr("choose a place that can be written")));
  });
  EXPECT_EQ(failed_.size(), 5u);
  ASSERT_EQ(mount("none", disk.c_str(), "tmpfs", MS_REMOUNT, nullptr), 0);
  ExpectAllGoesOn();
}

TEST_F(FaultTest, DamagedStoreFilesAreNamedWithWhatToDo) {
  const std::string original = memory_;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(memory_) / "0001/store")) {
    const std::string name = entry.path().filename().string();
    const bool is_data = name.ends_with(".sst") || name.ends_with(".blob") ||
                         name.starts_with("MANIFEST") || name == "CURRENT";
    if (is_data && entry.file_size() > 0) files.push_back(fs::relative(entry.path(), memory_));
  }
  ASSERT_GE(files.size(), 8u);
  int n_refused = 0;
  for (const fs::path& file : files) {
    for (const bool truncated : {false, true}) {
      SCOPED_TRACE(file.string() + (truncated ? " truncated" : " with a flipped bit"));
      memory_ = Path("copy");
      fs::copy(original, memory_, fs::copy_options::recursive);
      std::string bytes = Slurp(memory_ / file);
      if (truncated) {
        bytes.resize(bytes.size() * 2 / 3);
      } else {
        bytes[bytes.size() / 3] ^= 16;
      }
      std::ofstream(memory_ / file, std::ios::binary | std::ios::trunc) << bytes;

      const ProgramResult ask = Ask();
      if (ask.code != 0) {
        ++n_refused;
        EXPECT_EQ(ask.code, 1);
        EXPECT_THAT(ask.err, AllOf(HasSubstr(memory_), HasSubstr("fovea verify --repair")));
      }
      const ProgramResult found = Command({"verify", "--quiet", "--json"});
      EXPECT_EQ(found.code, 3) << found.err;
      const Json report = found.json();
      ASSERT_TRUE(report.is_object()) << found.err;
      ASSERT_FALSE(report["damaged"].empty()) << found.out;
      for (const Json& damage : report["damaged"]) {
        EXPECT_THAT(damage["what"].get<std::string>(), Not(IsEmpty()));
      }
      const ProgramResult repaired = Command({"verify", "--repair", "--quiet"});
      EXPECT_THAT(repaired.code, AnyOf(0, 3)) << repaired.err;
      EXPECT_THAT(repaired.out, Not(IsEmpty()));
      // Keys and values come from the text, and CURRENT from the newest manifest.
      if ((file.extension() == ".blob" && !truncated) || file.filename() == "CURRENT") {
        EXPECT_EQ(repaired.code, 0) << repaired.out;
        EXPECT_EQ(Command({"verify", "--quiet"}).code, 0);
        EXPECT_EQ(Ask().code, 0);
      }
      // What was in it may be lost. The file that cannot be read is gone, and what is left serves
      // once the documents that lost text are deleted, as the findings say.
      if (file.extension() == ".sst") {
        std::set<std::string> lost;
        const Json after = Command({"verify", "--quiet", "--json"}).json();
        for (const Json& damage : after["damaged"]) {
          EXPECT_THAT(damage["kind"], AnyOf("window", "block", "sample")) << damage.dump();
          EXPECT_THAT(damage["what"].get<std::string>(), HasSubstr("ingest it again"));
          lost.insert(damage["document"].get<std::string>());
        }
        for (const std::string& id : lost) EXPECT_EQ(Command({"docs", "delete", id}).code, 0);
        const ProgramResult again = Ask();
        if (IdsBySource().empty()) {
          EXPECT_THAT(again.err, HasSubstr("holds no documents"));
        } else {
          EXPECT_EQ(again.code, 0) << again.err;
        }
        EXPECT_EQ(Ingest(later_).code, 0);
        EXPECT_EQ(Command({"rebuild", "--quiet", "--index", "exact"}).code, 0);
        const ProgramResult sound = Command({"verify", "--quiet"});
        EXPECT_EQ(sound.code, 0) << sound.out;
      }
      fs::remove_all(memory_);
    }
  }
  EXPECT_GT(n_refused, 4);
}

TEST_F(FaultTest, ADamagedCurrentIsNamedAndPutRight) {
  const fs::path current = fs::path(memory_) / "CURRENT";
  const std::string documents = Command({"docs", "list", "--json"}).out;
  for (const char* content : {"0201\n", "00\n", "", "missing"}) {
    SCOPED_TRACE(content);
    if (content == std::string_view("missing")) {
      fs::remove(current);
    } else {
      std::ofstream(current, std::ios::trunc) << content;
    }
    const ProgramResult ask = Ask();
    EXPECT_EQ(ask.code, 1);
    EXPECT_THAT(ask.err, AllOf(HasSubstr(current.string()), HasSubstr("fovea verify --repair")));
    const ProgramResult found = Command({"verify", "--quiet", "--json"});
    EXPECT_EQ(found.code, 3) << found.err;
    ASSERT_EQ(found.json()["damaged"].size(), 1u) << found.out;
    EXPECT_THAT(found.json()["damaged"][0]["what"].get<std::string>(), HasSubstr(current.string()));
    const ProgramResult repaired = Command({"verify", "--repair", "--quiet", "--json"});
    EXPECT_EQ(repaired.code, 0) << repaired.out << repaired.err;
    ASSERT_EQ(repaired.json()["repaired"].size(), 1u) << repaired.out;
    EXPECT_EQ(repaired.json()["repaired"][0]["kind"], "current");
    EXPECT_EQ(Command({"docs", "list", "--json"}).out, documents);
    EXPECT_EQ(Command({"verify", "--quiet"}).code, 0);
  }
}

TEST_F(FaultTest, ADamagedTextIndexIsMadeAgainByTheNextWriter) {
  fs::path index;
  for (const auto& entry : fs::recursive_directory_iterator(memory_)) {
    if (entry.path().extension() == ".sqlite") index = entry.path();
  }
  const std::string question = Slurp(Path("old.txt")).substr(30000, 40);
  const auto ask = [&] {
    const ProgramResult result = Command({"ask", question, "--json", "--quiet", "--max-tokens", "1",
                                          "--reread", "1", "--reread-by", "bm25"});
    EXPECT_EQ(result.code, 0) << result.err;
    return result.json();
  };
  const auto find = [&] { return ask()["usage"]["prompt_tokens"].get<int>(); };
  const int with_passage = find();
  for (const bool removed : {false, true}) {
    if (removed) {
      fs::remove(index);
    } else {
      std::ofstream(index, std::ios::binary | std::ios::trunc) << std::string(20000, 'x');
    }
    // A reader goes without it, and says so.
    EXPECT_THAT(ask()["notes"].dump(),
                AllOf(HasSubstr(index.string()), HasSubstr("fovea rebuild")));
    const ProgramResult removal =
        removed ? Command({"rebuild", "--quiet", "--index", "exact"})
                : Command({"docs", "delete", IdsBySource().at(Path("older.txt"))});
    EXPECT_EQ(removal.code, 0) << removal.err;
    EXPECT_EQ(find(), with_passage);
    const ProgramResult verify = Command({"verify", "--quiet"});
    EXPECT_EQ(verify.code, 0) << verify.err << verify.out;
  }
}

TEST_F(FaultTest, AFlippedBitInTheTextIndexIsTold) {
  fs::path index;
  for (const auto& entry : fs::recursive_directory_iterator(memory_)) {
    if (entry.path().extension() == ".sqlite") index = entry.path();
  }
  const std::string question = Slurp(Path("old.txt")).substr(30000, 40);
  // Without what is measured.
  const auto ask = [&] {
    const ProgramResult result =
        Command({"ask", question, "--json", "--quiet", "--max-tokens", "2", "--reread", "1",
                 "--reread-by", "bm25", "--precision", "float32"});
    EXPECT_EQ(result.code, 0) << result.err;
    Json answer = result.json();
    answer.erase("timing");
    return answer;
  };
  const Json whole = ask();
  const std::string sound = Slurp(index);
  std::mt19937 random(3);
  int n_told = 0;
  for (int i = 0; i < 24; ++i) {
    std::string bytes = sound;
    const size_t at = random() % bytes.size();
    SCOPED_TRACE("byte " + std::to_string(at));
    bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
    std::ofstream(index, std::ios::binary | std::ios::trunc) << bytes;
    if (const Json answer = ask(); answer != whole) {
      ++n_told;
      EXPECT_THAT(answer["notes"].dump(),
                  AllOf(HasSubstr(index.string()), HasSubstr("does not match its checksum")));
    }
    const ProgramResult found = Command({"verify", "--quiet", "--json"});
    EXPECT_EQ(found.code, 3) << found.err;
    EXPECT_EQ(found.json()["damaged"][0]["kind"], "text_index") << found.out;
    if (i % 6 == 0) {
      EXPECT_EQ(Command({"verify", "--repair", "--quiet"}).code, 0);
      EXPECT_EQ(ask(), whole);
    }
  }
  EXPECT_GT(n_told, 0);
}

}  // namespace
}  // namespace fovea::cli
