// What the program says where a GPU is asked for and cannot be used: each command, each reason,
// with a driver of the test's in the place of NVIDIA's. No memory comes to harm.
#include <gmock/gmock.h>

#include "compute/device.h"
#include "tests/cli/command_fixture.h"

namespace fovea::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class GpuTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    if (absl::IsUnimplemented(compute::Device::Create("cuda").status())) {
      GTEST_SKIP() << "this build has no CUDA part";
    }
    unsetenv("CUDA_VISIBLE_DEVICES");
    environment_["LD_LIBRARY_PATH"] = FOVEA_TEST_DRIVER_FOLDER;
  }
  ProgramResult Stats(const std::string& device) const {
    return Command({"stats", "--device", device});
  }
};

TEST_F(GpuTest, EachReasonIsToldWithWhatToDo) {
  IngestBoth();
  struct Case {
    const char* version;  // of CUDA, that the driver supports
    const char* init;     // what its first call ends with
    const char* visible;  // CUDA_VISIBLE_DEVICES; null: unset
    std::vector<std::string> says;
  };
  const std::vector<Case> cases = {
      {"11080", "0", nullptr, {"supports CUDA 11.8", "needs ", "update the driver"}},
      {"99000", "100", nullptr, {"finds no GPU", "nvidia-smi -L", "--gpus all"}},
      {"99000", "100", "", {"CUDA_VISIBLE_DEVICES is \"\"", "no GPU", "unset it"}},
      {"99000", "100", "7", {"CUDA_VISIBLE_DEVICES is \"7\"", "nvidia-smi -L"}},
      {"99000", "803", nullptr, {"does not answer", "restart the machine"}},
      {"99000", "999", nullptr, {"does not answer", "restart the driver"}},
      {"99000", "0", nullptr, {"another process alone", "compute mode"}},
  };
  for (const Case& of : cases) {
    SCOPED_TRACE(StrCat(of.version, ", ", of.init));
    environment_["TEST_CUDA_VERSION"] = of.version;
    environment_["TEST_CUDA_INIT"] = of.init;
    environment_.erase("CUDA_VISIBLE_DEVICES");
    if (of.visible != nullptr) environment_["CUDA_VISIBLE_DEVICES"] = of.visible;
    const ProgramResult result = Stats("cuda:1");
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, AllOf(HasSubstr("--device cuda:1"), HasSubstr("'cpu'")));
    for (const std::string& text : of.says) EXPECT_THAT(result.err, HasSubstr(text));
  }
}

TEST_F(GpuTest, EveryCommandFailsBeforeItBegins) {
  IngestBoth();
  environment_["TEST_CUDA_INIT"] = "100";
  const std::string fresh = Path("fresh");
  const std::vector<Arguments> commands = {
      {"ingest", "--memory", memory_, otter_},
      {"ingest", "--memory", fresh, "--model", "tiny", "--mem-layers", "1", otter_},
      {"ingest", "--memory", memory_, "--watch", Path("home")},
      {"ask", "--memory", memory_, "Who digs?"},
      {"chat", "--memory", memory_},
      {"rebuild", "--memory", memory_},
      {"rebuild", "--memory", memory_, "--reencode"},
      {"verify", "--memory", memory_},
      {"verify", "--memory", memory_, "--repair"},
      {"stats", "--memory", memory_},
      {"parity", "--fixture", memory_}};
  for (Arguments arguments : commands) {
    SCOPED_TRACE(::testing::PrintToString(arguments));
    arguments.insert(arguments.end(), {"--device", "cuda"});
    const ProgramResult result = Fovea(arguments);
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, HasSubstr("finds no GPU"));
  }
  EXPECT_FALSE(fs::exists(fresh));
  const ProgramResult verified = Command({"verify"});
  EXPECT_EQ(verified.code, 0) << verified.out << verified.err;
  EXPECT_THAT(Command({"docs", "list", "--json"}).out,
              AllOf(HasSubstr("otter"), HasSubstr("tools")));
}

TEST_F(GpuTest, WhatNoGpuIsNeededToSeeIsWrongUsage) {
  IngestBoth();
  const ProgramResult precision = Command({"ask", "Q", "--device", "cuda", "--precision", "int8"});
  EXPECT_EQ(precision.code, 2);
  EXPECT_THAT(precision.err, AllOf(HasSubstr("int8"), HasSubstr("'bfloat16'")));
}

}  // namespace
}  // namespace fovea::cli
