// Sources refer to documents: whatever becomes of the files, the memory holds the texts that they
// hold. Random edits, moves, copies, swaps, deletions and kills against a model of a few lines.
//
// FOVEA_TEST_SEQUENCES: how many random sequences (default 12); FOVEA_TEST_SEED: the first seed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "documents/names.h"
#include "memory/ingest/gone_sources.h"
#include "memory/ingest/ingester.h"
#include "memory/upkeep/verify.h"
#include "tests/memory/tiny_model.h"
#include "tests/storage/fault_file_system.h"
#include "tests/storage/store_test_util.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using storage::FaultFileSystem;
using storage::FileOperation;

// source, collection → text
using Held = std::map<std::pair<std::string, std::string>, std::string>;

constexpr char kSync[] = "sync";

// The child's side: ingests the files of folder/files, or those that are named, in their order.
// Prints how many changes reached the disk.
absl::Status Work(const fs::path& folder, int64_t kill_at, const std::string& how,
                  const std::string& collection, const std::vector<std::string>& names) {
  FaultFileSystem disk;
  if (kill_at > 0) disk.KillAt(kill_at, /*torn=*/kill_at % 2 == 0);
  const auto device = *compute::Device::Create("cpu", 1);
  ASSIGN_OR_RETURN(const auto model, LoadTinyModel(device.get(), folder / "model"));
  MemoryOptions memory_options;
  memory_options.mode = storage::OpenMode::kCreate;
  memory_options.file_system = disk.file_system();
  ASSIGN_OR_RETURN(const auto memory, Memory::Open(folder / "memory", memory_options));
  IngestOptions options;
  options.model_name = (folder / "model").string();
  options.window = 64;
  options.overlap = 16;
  options.encode_batch_tokens = 128;
  absl::Status failed;
  options.on_document = [&](const IngestedDocument& document) {
    if (document.status == IngestStatus::kFailed) failed = absl::InternalError(document.error);
  };
  ASSIGN_OR_RETURN(const auto ingester, Ingester::Create(memory.get(), model.get(), options));
  const fs::path files = folder / "files";
  ASSIGN_OR_RETURN(const std::string root, documents::SourceOfPath(files));
  GoneSources gone({root});
  for (const std::string& name : names) {
    const auto add = [&](const std::string&,
                         absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) {
      RETURN_IF_ERROR(document.status());
      return ingester->Add(**document, collection);
    };
    RETURN_IF_ERROR(documents::ReadDocuments(files / name, {}, add));
    ASSIGN_OR_RETURN(const std::string file, documents::SourceOfPath(files / name));
    gone.AddRead(file);
  }
  if (how == kSync) {
    RETURN_IF_ERROR(
        ingester->RemoveSources([&](const std::string& source) { return gone.IsGone(source); }));
  }
  RETURN_IF_ERROR(ingester->Finish());
  return failed;
}

// A folder with files, a memory of them, and what the memory has to hold.
class Sequence {
 public:
  Sequence(const fs::path& folder, uint32_t seed) : folder_(folder), random_(seed) {
    for (int i = 0; i < 7; ++i) texts_.push_back(RandomText());
    fs::create_directories(folder_ / "files" / "old");
    EXPECT_TRUE(WriteTinyModel(folder_ / "model", 1).ok());
  }

  void Run() {
    for (int step = 0; step < 6 && !testing::Test::HasFailure(); ++step) {
      for (uint32_t changes = 1 + Below(5); changes-- > 0;) ChangeFiles();
      Ingest(step == 5);
    }
  }

 private:
  uint32_t Below(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }

  std::string RandomText() {
    std::string text;
    for (uint32_t words = 1 + Below(80); words-- > 0;) {
      text += StrCat("word", Below(40), words % 9 == 0 ? ".\n" : " ");
    }
    return text + StrCat("end ", Below(1 << 30));
  }

  // The files by name, with their texts; of a .jsonl file "id=text" lines.
  static const std::vector<std::string>& Names() {
    static const std::vector<std::string> names = {
        "a.txt", "b.txt", "c.txt", "d.txt", "old/e.txt", "old/f.txt", "#g.txt", "old/c#h.txt"};
    return names;
  }

  void ChangeFiles() {
    const std::string name = Names()[Below(Names().size())];
    const std::string other = Names()[Below(Names().size())];
    std::string& text = texts_[Below(texts_.size())];
    switch (Below(9)) {
      case 0:
      case 1:
        files_[name] = text;
        break;
      case 2:  // a new text, or an edited one
        text = Below(2) == 0 ? RandomText() : text + " And more.";
        break;
      case 3:
        if (files_.contains(name)) files_[name].insert(files_[name].size() / 2, "Edited. ");
        break;
      case 4:  // moved
        if (files_.contains(name) && name != other) {
          files_[other] = files_[name];
          files_.erase(name);
        }
        break;
      case 5:
        if (files_.contains(name)) files_[other] = files_[name];
        break;
      case 6:
        if (files_.contains(name) && files_.contains(other)) std::swap(files_[name], files_[other]);
        break;
      case 7:
        files_.erase(name);
        break;
      case 8: {
        const std::string id = StrCat("id", Below(3));
        if (Below(4) == 0) {
          records_.erase(id);
        } else if (Below(2) == 0 && records_.contains("id0") && records_.contains("id1")) {
          std::swap(records_["id0"], records_["id1"]);
        } else {
          records_[id] = text;
        }
        break;
      }
    }
  }

  // Puts files_ and records_ on the disk. Returns the names of the files.
  std::vector<std::string> WriteFiles() {
    for (const std::string& name : Names()) fs::remove(folder_ / "files" / name);
    std::vector<std::string> names;
    for (const auto& [name, text] : files_) {
      EXPECT_TRUE(WriteFileAtomic(folder_ / "files" / name, text).ok());
      names.push_back(name);
    }
    fs::remove(folder_ / "files" / "r.jsonl");
    if (!records_.empty()) {
      std::string lines;
      for (const auto& [id, text] : records_) {
        lines += nlohmann::json({{"id", id}, {"text", text}}).dump() + "\n";
      }
      EXPECT_TRUE(WriteFileAtomic(folder_ / "files" / "r.jsonl", lines).ok());
      names.push_back("r.jsonl");
    }
    return names;
  }

  // What the files named hold, by source.
  std::map<std::string, std::string> Read(const std::vector<std::string>& names) const {
    std::map<std::string, std::string> held;
    for (const std::string& name : names) {
      const std::string source = (folder_ / "files" / name).string();
      if (name != "r.jsonl") {
        held[source] = files_.at(name);
        continue;
      }
      for (const auto& [id, text] : records_) held[source + "#" + id] = text;
    }
    return held;
  }

  void Ingest(bool is_last) {
    std::vector<std::string> names = WriteFiles();
    std::shuffle(names.begin(), names.end(), random_);
    const bool syncs = is_last || Below(2) == 0;
    if (!syncs && !names.empty()) names.resize(1 + Below(names.size()));
    const std::string collection = Below(4) == 0 ? "other" : "default";
    // The model: a source holds what its file holds once it was read; one of a file that is gone
    // holds what it held, until a sync.
    Held after = held_;
    const auto read = Read(names);
    for (const auto& [source, text] : read) after[{source, collection}] = text;
    if (syncs) {
      std::erase_if(after, [&](const auto& entry) { return !read.contains(entry.first.first); });
      for (auto& [key, text] : after) text = read.at(key.first);
    }
    // Killed at some change to the disk, perhaps more than once; the last run goes through.
    for (uint32_t kills = Below(3); kills-- > 0;) {
      if (!Spawn(1 + Below(120), syncs, collection, names)) continue;
      CheckBetween(after);
    }
    ASSERT_FALSE(Spawn(0, syncs, collection, names));
    held_ = after;
    Check();
  }

  // Returns whether the process was killed.
  bool Spawn(int64_t kill_at, bool syncs, const std::string& collection,
             const std::vector<std::string>& names) {
    std::vector<std::string> arguments = {"sources_test",           "--worker",
                                          folder_.string(),         std::to_string(kill_at),
                                          syncs ? kSync : "ingest", collection};
    arguments.insert(arguments.end(), names.begin(), names.end());
    const pid_t pid = fork();
    FOVEA_CHECK(pid >= 0);
    if (pid == 0) {
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv("/proc/self/exe", argv.data());
      _exit(127);
    }
    int status = 0;
    FOVEA_CHECK(waitpid(pid, &status, 0) == pid);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!killed) {
      EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    }
    return killed;
  }

  // What the memory holds; the texts are read from it.
  Held Stored(Memory* memory) {
    Held stored;
    for (const storage::DocumentRecord& document : memory->Current()->documents) {
      std::string text;
      const absl::Status read = ReadText(*memory->Current(), document, [&](std::string_view piece) {
        text += piece;
        return absl::OkStatus();
      });
      EXPECT_TRUE(read.ok()) << read;
      for (const storage::SourceReference& source : document.sources) {
        const bool is_new = stored.insert({{source.source, source.collection}, text}).second;
        EXPECT_TRUE(is_new) << source.source << " refers to two documents";
      }
    }
    return stored;
  }

  void Check() {
    auto memory = Memory::Open(folder_ / "memory", {});
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_EQ(Stored(memory->get()), held_);
    std::set<std::string> texts;
    for (const auto& [key, text] : held_) texts.insert(text);
    EXPECT_EQ((*memory)->Current()->documents.size(), texts.size());
    const auto report = Verify(*device_, memory->get(), VerifyOptions());
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->ok) << (report->damaged.empty() ? "" : report->damaged.front().what);
  }

  // After a kill: what did not change is there; nothing is there that neither was nor will be.
  void CheckBetween(const Held& after) {
    auto memory = Memory::Open(folder_ / "memory", {});
    if (!memory.ok() && held_.empty()) return;  // killed while the memory was made
    ASSERT_TRUE(memory.ok()) << memory.status();
    const Held stored = Stored(memory->get());
    for (const auto& [key, text] : held_) {
      const auto later = after.find(key);
      if (later == after.end() || later->second != text) continue;
      const auto now = stored.find(key);
      ASSERT_TRUE(now != stored.end()) << key.first << " is gone";
      EXPECT_EQ(now->second, text);
    }
    for (const auto& [key, text] : stored) {
      const auto has = [&](const Held& held) {
        const auto found = held.find(key);
        return found != held.end() && found->second == text;
      };
      EXPECT_TRUE(has(held_) || has(after)) << key.first;
    }
  }

  const fs::path folder_;
  const std::unique_ptr<compute::Device> device_ = *compute::Device::Create("cpu", 1);
  std::mt19937 random_;
  std::vector<std::string> texts_;
  std::map<std::string, std::string> files_;    // name → text
  std::map<std::string, std::string> records_;  // id → text, of r.jsonl
  Held held_;
};

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

TEST(SourcesTest, TheMemoryHoldsWhatTheFilesHold) {
  const int64_t n_sequences = FromEnvironment("FOVEA_TEST_SEQUENCES", 12);
  const int64_t seed = FromEnvironment("FOVEA_TEST_SEED", 1);
  for (int64_t i = 0; i < n_sequences && !HasFailure(); ++i) {
    SCOPED_TRACE(StrCat("seed ", seed + i));
    storage::TemporaryFolder folder;
    Sequence(folder.path(), static_cast<uint32_t>(seed + i)).Run();
  }
}

}  // namespace
}  // namespace fovea::memory

int main(int argc, char** argv) {
  if (argc >= 6 && std::strcmp(argv[1], "--worker") == 0) {
    const absl::Status status = fovea::memory::Work(argv[2], std::atoll(argv[3]), argv[4], argv[5],
                                                    {argv + 6, argv + argc});
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
