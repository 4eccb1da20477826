// fovea-train as users run it.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/run_fovea.h"

namespace fovea::cli {
namespace {

using ::testing::HasSubstr;

class TrainProgramTest : public ProgramTest {
 protected:
  // The smallest model of the dictionary task, but for `other` options.
  ProgramResult TrainDictionary(const std::map<std::string, std::string>& other,
                                const Arguments& flags = {}) const {
    std::map<std::string, std::string> options = {
        {"--out", Path("run")}, {"--layers", "2"}, {"--mem-layer", "1"}, {"--width", "16"},
        {"--heads", "2"},       {"--mlp", "16"},   {"--batch", "4"},     {"--contexts", "1:0.5,4"}};
    for (const auto& [name, value] : other) options[name] = value;
    Arguments arguments = {"dictionary", "--quiet"};
    for (const auto& [name, value] : options) arguments.insert(arguments.end(), {name, value});
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return Fovea(arguments);
  }
};

TEST_F(TrainProgramTest, LeavesNothingOfARunThatIsRefused) {
  const std::pair<std::map<std::string, std::string>, std::string> refused[] = {
      {{}, "a number of steps or of seconds"},
      {{{"--steps", "2"}, {"--seconds", "2"}}, "a number of steps or of seconds"},
      {{{"--steps", "2"}, {"--batch", "2"}}, "make the batch larger (--batch)"},
      {{{"--steps", "2"}, {"--contexts", "1:2"}}, "1:2"},
      {{{"--steps", "2"}, {"--heads", "3"}}, "want heads of"},
      {{{"--steps", "2"}, {"--mem-layer", "2"}}, "layer"},
      {{{"--steps", "2"}, {"--precision", "int8"}}, "int8"},
  };
  for (const auto& [options, message] : refused) {
    const ProgramResult result = TrainDictionary(options);
    EXPECT_NE(result.code, 0) << message;
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run")) << message;
    std::filesystem::remove_all(folder_ / "run");
  }
  const ProgramResult result = TrainDictionary({{"--steps", "2"}}, {"--resume"});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("no checkpoint to go on from"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

TEST_F(TrainProgramTest, KeepsTheConfigurationOfARun) {
  ASSERT_EQ(TrainDictionary({{"--steps", "2"}}).code, 0);
  const std::string kept = Slurp(folder_ / "run/configuration.json");
  EXPECT_THAT(kept, HasSubstr("\"task\": \"dictionary\""));
  const ProgramResult again = TrainDictionary({{"--steps", "3"}});
  EXPECT_NE(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("holds a run"));
  const ProgramResult other = TrainDictionary({{"--steps", "3"}}, {"--resume"});
  EXPECT_NE(other.code, 0);
  EXPECT_THAT(other.err, HasSubstr("the run has steps 2, not 3"));
  EXPECT_EQ(Slurp(folder_ / "run/configuration.json"), kept);
}

}  // namespace
}  // namespace fovea::cli
