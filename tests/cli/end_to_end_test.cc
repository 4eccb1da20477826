// The program with the default model and its adapter: facts that were read yesterday are answered
// today, with the right source.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/run_fovea.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kModelFile[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

class EndToEndTest : public ProgramTest {
 protected:
  void SetUp() override {
    const char* fovea_home = std::getenv("FOVEA_HOME");
    const char* user_home = std::getenv("HOME");
    const fs::path home = fovea_home != nullptr && *fovea_home != '\0'
                              ? fs::path(fovea_home)
                              : fs::path(user_home) / ".local/share/fovea";
    const fs::path model = home / "models" / kModelFile;
    if (!fs::exists(model)) GTEST_SKIP() << model << " is not there: fovea model pull smollm2";
    // A home of its own with the model in it: what else the user has there does not matter.
    fs::create_directories(folder_ / "home/models");
    fs::create_symlink(model, folder_ / "home/models" / kModelFile);
    environment_["FOVEA_MEMORY"] = Path("memory");
    harbor_ = Write("harbor.txt",
                    "The ferry came late that evening, and nobody on the pier said a word.\n\n"
                    "The special magic number for silver harbor is: 48213.\n\n"
                    "Rain fell on the nets until the morning.\n");
    compass_ = Write("compass.md",
                     "# A walk\n\nWe took the long path along the cliffs.\n\n"
                     "Clara Mercer left the compass in the lighthouse.\n\n"
                     "Then the wind turned and we went home.\n");
  }
  Json Ask(const std::string& question, const Arguments& more = {}) {
    Arguments arguments = {"ask", "--json", "--max-tokens", "16", question};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = Fovea(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.json();
  }

  std::string harbor_;
  std::string compass_;
};

TEST_F(EndToEndTest, AnAdapterThatWasMadeForAnotherModelIsWarnedAbout) {
  fs::copy(FOVEA_SOURCE_DIR "/models/smollm2-135m-fot-5", folder_ / "adapter");
  std::string config = Slurp(folder_ / "adapter/adapter_config.json");
  const std::string base = "Smollm2 135M 8k Lc100K Mix1 Ep2";
  ASSERT_NE(config.find(base), std::string::npos);
  config.replace(config.find(base), base.size(), "some/other-model-1B");
  Write("adapter/adapter_config.json", config);
  const auto warning = HasSubstr("was made for the base model some/other-model-1B");
  const ProgramResult ingest =
      Fovea({"ingest", "--json", "--quiet", "--adapter", Path("adapter"), harbor_});
  ASSERT_EQ(ingest.code, 0) << ingest.err;
  EXPECT_THAT(ingest.err, warning);
  ASSERT_THAT(ingest.json()["warnings"], SizeIs(1));
  EXPECT_THAT(ingest.json()["warnings"][0]["warning"].get<std::string>(), warning);
  const ProgramResult ask = Fovea({"ask", "--json", "--max-tokens", "4", "Where is the harbor?"});
  EXPECT_THAT(ask.err, warning);
  ASSERT_THAT(ask.json()["notes"], SizeIs(::testing::Ge(1u)));
  EXPECT_THAT(ask.json()["notes"][0].get<std::string>(), warning);
}

TEST_F(EndToEndTest, AnswersFromTheMemoryWithSources) {
  const ProgramResult ingest = Fovea({"ingest", "--json", harbor_, compass_});
  ASSERT_EQ(ingest.code, 0) << ingest.err;
  // The adapter was found: no hint. (On a slow machine there are lines of progress.)
  EXPECT_THAT(ingest.err, ::testing::Not(HasSubstr("fovea: ")));

  const Json stats = Fovea({"stats", "--json"}).json();
  EXPECT_EQ(stats["model"], "smollm2");
  EXPECT_EQ(stats["documents"], 2);

  const std::string question = "What is the special magic number for silver harbor?";
  const Json answer = Ask(question);
  EXPECT_THAT(answer["answer"].get<std::string>(), HasSubstr("48213"));
  EXPECT_EQ(answer["finish_reason"], "stop");
  ASSERT_THAT(answer["sources"], SizeIs(::testing::Ge(1u)));
  EXPECT_EQ(answer["sources"][0]["title"], "harbor");
  EXPECT_EQ(answer["usage"]["memory_tokens"], stats["tokens"]);
  // The same from keys and values alone, and by every key.
  EXPECT_THAT(Ask(question, {"--reread", "0"})["answer"].get<std::string>(), HasSubstr("48213"));
  EXPECT_THAT(Ask(question, {"--reread", "0", "--mode", "dense"})["answer"].get<std::string>(),
              HasSubstr("48213"));

  const Json place = Ask("Where did Clara Mercer leave the compass?");
  EXPECT_THAT(place["answer"].get<std::string>(), HasSubstr("lighthouse"));
  EXPECT_EQ(place["sources"][0]["title"], "A walk");

  // Without the memory the model cannot know.
  EXPECT_THAT(Ask(question, {"--no-memory"})["answer"].get<std::string>(),
              ::testing::Not(HasSubstr("48213")));

  const ProgramResult deleted =
      Fovea({"docs", "delete", answer["sources"][0]["document"].get<std::string>()});
  ASSERT_EQ(deleted.code, 0) << deleted.err;
  EXPECT_THAT(Ask(question)["answer"].get<std::string>(), ::testing::Not(HasSubstr("48213")));
  EXPECT_EQ(Fovea({"verify"}).code, 0);
}

}  // namespace
}  // namespace fovea::cli
