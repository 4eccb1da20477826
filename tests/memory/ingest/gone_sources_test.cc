// A source is gone exactly when reading its folder again would not give it.
#include "memory/ingest/gone_sources.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>

#include "documents/file_kind.h"
#include "documents/names.h"
#include "documents/text_document.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using Sources = std::set<std::string>;

class GoneSourcesTest : public ::testing::Test {
 protected:
  GoneSourcesTest() {
    std::string name = (fs::temp_directory_path() / "fovea-gone-XXXXXX").string();
    FOVEA_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
    root_ = folder_ / "s";
  }
  ~GoneSourcesTest() override { fs::remove_all(folder_); }

  static void Write(const fs::path& path, const std::string& bytes) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
  }
  static std::string SourceOf(const fs::path& path) { return *documents::SourceOfPath(path); }

  // What an ingest of root_ reads now, and what it tells gone_ about that; files whose text is as
  // before are not read.
  Sources Read(const Sources& unchanged = {}) {
    gone_ = std::make_unique<GoneSources>(std::vector<std::string>{SourceOf(root_)});
    Sources sources;
    const auto list = documents::ListDocuments(root_, /*recursive=*/true);
    if (!list.ok()) {
      EXPECT_TRUE(absl::IsNotFound(list.status())) << list.status();
      return sources;
    }
    for (const fs::path& file : list->files) {
      if (unchanged.contains(SourceOf(file))) {
        gone_->AddUnread(SourceOf(file));
        continue;
      }
      bool is_whole = true;
      const auto visit = [&](const std::string& source, auto document) {
        if (document.ok()) sources.insert(source);
        is_whole &= document.ok() || !documents::KindOfError(document.status()).empty();
        return absl::OkStatus();
      };
      EXPECT_TRUE(documents::ReadDocuments(file, {}, visit).ok());
      is_whole ? gone_->AddRead(SourceOf(file)) : gone_->AddUnread(SourceOf(file));
    }
    for (const auto& left_out : list->left_out) gone_->AddLeftOut(SourceOf(left_out.path));
    return sources;
  }

  fs::path folder_;
  fs::path root_;
  std::unique_ptr<GoneSources> gone_;
};

// What may become of a file.
struct Change {
  const char* name;
  std::function<void(const fs::path& path, const fs::path& elsewhere)> make;
};

void Bind(const fs::path& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // Its path may be longer than an address.
  const int folder = open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY);
  const std::string name =
      "/proc/self/fd/" + std::to_string(folder) + "/" + path.filename().string();
  name.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(fd);
  close(folder);
}

const std::vector<Change>& Changes() {
  static const auto& changes = *new std::vector<Change>{
      {"nothing", [](const fs::path&, const fs::path&) {}},
      {"a folder", [](const fs::path& path, const fs::path&) { fs::create_directories(path); }},
      {"a folder with a file",
       [](const fs::path& path, const fs::path&) {
         fs::create_directories(path);
         std::ofstream(path / "n.txt") << "text";
       }},
      {"a link to nothing",
       [](const fs::path& path, const fs::path& elsewhere) {
         fs::create_symlink(elsewhere / "none", path);
       }},
      {"a link to a folder",
       [](const fs::path& path, const fs::path& elsewhere) {
         fs::create_directory_symlink(elsewhere, path);
       }},
      {"a link to a file",
       [](const fs::path& path, const fs::path& elsewhere) {
         fs::create_symlink(elsewhere / "n.txt", path);
       }},
      {"a FIFO",
       [](const fs::path& path, const fs::path&) { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); }},
      {"a socket", [](const fs::path& path, const fs::path&) { Bind(path); }},
      {"empty", [](const fs::path& path, const fs::path&) { std::ofstream{path}; }},
      {"a gzip file",
       [](const fs::path& path, const fs::path&) {
         std::ofstream(path) << std::string("\x1F\x8B\x08\0", 4);
       }},
      {"another text",
       [](const fs::path& path, const fs::path&) {
         std::ofstream(path) << "{\"text\": \"another\", \"id\": \"new\"}\n";
       }},
  };
  return changes;
}

std::string Records() {
  std::string records;
  for (const std::string& id :
       {std::string("1"), std::string("#"), std::string("a#b"), std::string("x/1"),
        std::string("../y"), std::string("y.txt"), std::string(1000, 'i'), std::string("\\u0001"),
        std::string("\\u0000b")}) {
    records += "{\"id\": \"" + id + "\", \"text\": \"of a record\"}\n";
  }
  return records + "{\"text\": \"without an id\"}\n";
}

constexpr const char* kNames[] = {
    "n.txt",   "#n.txt",   "n#.txt",  "a#b.txt", "#",    "a#",
    "#a#b#",   "\x01#\\",  "C#/n.t",  "#d/n.t",  "#d/#", "x.jsonl#y.txt",
    "x.jsonl", "#x.jsonl", "y.jsonl", "d/e#/#n", "d/#"};

TEST_F(GoneSourcesTest, AreThoseThatReadingAgainWouldNotGive) {
  const fs::path elsewhere = folder_ / "elsewhere";
  Write(elsewhere / "n.txt", "{\"text\": \"elsewhere\", \"id\": \"e\"}\n");
  for (const char* name : kNames) {
    for (const Change& change : Changes()) {
      fs::remove_all(root_);
      Write(root_ / "keep.txt", "text");
      Write(root_ / "a", "text");
      Write(root_ / "y.jsonl", Records());
      const fs::path file = root_ / name;
      Write(file, file.extension() == ".jsonl" ? Records() : "text");
      const Sources before = Read();
      ASSERT_GE(before.size(), 3u);
      fs::remove(file);
      change.make(file, elsewhere);
      const Sources now = Read();
      for (const std::string& source : before) {
        if (now.contains(source)) continue;  // it was met
        EXPECT_TRUE(gone_->IsGone(source)) << source << " when " << name << " is " << change.name;
      }
      // The same where nothing else has changed, and nothing else is read.
      Sources unchanged = now;
      unchanged.insert(SourceOf(root_ / "y.jsonl"));
      unchanged.erase(SourceOf(file));
      Read(unchanged);
      for (const std::string& source : before) {
        if (now.contains(source)) {
          EXPECT_TRUE(source == SourceOf(file) || !gone_->IsGone(source)) << source;
        } else {
          EXPECT_TRUE(gone_->IsGone(source)) << source << " when " << name << " is " << change.name;
        }
      }
    }
  }
}

TEST_F(GoneSourcesTest, AFolderAboveThemMayBeAnything) {
  const fs::path elsewhere = folder_ / "elsewhere";
  Write(elsewhere / "n.txt", "{\"text\": \"elsewhere\", \"id\": \"e\"}\n");
  for (const char* name : {"d", "#d", "d#", "a#d"}) {
    for (const Change& change : Changes()) {
      fs::remove_all(root_);
      Write(root_ / "keep.txt", "text");
      Write(root_ / name / "n.txt", "text");
      Write(root_ / name / "e" / "m.txt", "text");
      const Sources before = Read();
      fs::remove_all(root_ / name);
      change.make(root_ / name, elsewhere);
      const Sources now = Read();
      for (const std::string& source : before) {
        if (now.contains(source)) continue;
        EXPECT_TRUE(gone_->IsGone(source)) << source << " when " << name << " is " << change.name;
      }
    }
  }
}

TEST_F(GoneSourcesTest, TheRootItselfMayHaveBeenAFile) {
  for (const char* name : {"s", "#s", "s.jsonl"}) {
    root_ = folder_ / name;
    Write(root_, root_.extension() == ".jsonl" ? Records() : "text");
    const Sources before = Read();
    ASSERT_GE(before.size(), 1u);
    fs::remove(root_);
    Write(root_ / "n.txt", "text");
    const Sources now = Read();
    EXPECT_EQ(now, Sources{SourceOf(root_ / "n.txt")});
    for (const std::string& source : before) EXPECT_TRUE(gone_->IsGone(source)) << source;
  }
}

TEST_F(GoneSourcesTest, AreOfTheRoot) {
  Write(root_ / "keep.txt", "text");
  Read();
  for (const char* name : {"s#1.txt", "s2/n.txt", "t.txt", "#s/n.txt", "s.jsonl#1"}) {
    EXPECT_FALSE(gone_->IsGone(SourceOf(folder_ / name))) << name;
  }
  EXPECT_TRUE(gone_->IsGone(SourceOf(root_ / "n.txt")));
  EXPECT_FALSE(gone_->IsGone("-"));
}

TEST_F(GoneSourcesTest, AreNotThoseOfWhatCouldNotBeRead) {
  Write(root_ / "n.jsonl", "{\"id\": \"1\", \"text\": \"x\"}\nbroken\n");
  Write(root_ / "n.txt", "caf\xE9");
  Write(root_ / ".hidden", "text");
  Read();
  for (const char* name : {"n.jsonl#2", "n.jsonl#a#b", "n.txt", ".hidden"}) {
    EXPECT_FALSE(gone_->IsGone(SourceOf(root_) + "/" + name)) << name;
  }
  EXPECT_TRUE(gone_->IsGone(SourceOf(root_ / "n.txt#1")));
  fs::remove(root_ / ".hidden");
  EXPECT_TRUE(gone_->IsGone(SourceOf(root_ / ".hidden")));
}

}  // namespace
}  // namespace fovea::memory
