// What answers say of how they were made, and questions that are none.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/command_fixture.h"

namespace fovea::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class QuestionTest : public CommandTest {
 protected:
  static std::vector<std::string> Notes(const ProgramResult& result) {
    return result.json()["notes"].get<std::vector<std::string>>();
  }
};

TEST_F(QuestionTest, AMemoryThatIsOffIsNotAudited) {
  IngestBoth();
  const std::string question = "Where does the otter live?";
  for (const char* how : {"--audit", "--mode"}) {
    Arguments options = {"--json", how};
    if (options.back() == "--mode") options.emplace_back("dense");
    const ProgramResult off = Command(Ask(question, options));
    ASSERT_EQ(off.code, 0) << off.err;
    EXPECT_TRUE(off.json()["audit"].is_null());
    EXPECT_THAT(Notes(off), Contains(AllOf(HasSubstr("the memory was not searched"), HasSubstr(how),
                                           HasSubstr("--reread-memory on, or --reread 0"))));
    options.insert(options.end(), {"--reread", "0"});
    const ProgramResult on = Command(Ask(question, options));
    EXPECT_EQ(on.json()["audit"].is_object(), how == std::string("--audit"));
    EXPECT_THAT(Notes(on), IsEmpty());
  }
  // A search that found the passage is one.
  const ProgramResult found =
      Command(Ask(question, {"--json", "--audit", "--reread-by", "attention"}));
  EXPECT_TRUE(found.json()["audit"].is_object());
}

TEST_F(QuestionTest, AListSaysOfWhichQuestionNothingFits) {
  IngestBoth();
  const ProgramResult text = Command(Ask("-"), "Where does the otter live?\n\nzyx wvu?\n");
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(Lines(text.out), SizeIs(2));
  EXPECT_THAT(text.err, HasSubstr("fovea: line 3: no stored passage fits the question"));
  EXPECT_THAT(text.err, Not(HasSubstr("line 1: ")));
  EXPECT_THAT(Command(Ask("-", {"--quiet"}), "zyx wvu?\n").err, IsEmpty());
}

TEST_F(QuestionTest, BytesThatAreNoTextAreNoQuestion) {
  IngestBoth();
  const std::pair<std::string, std::string> questions[] = {
      {"caf\xE9?", "not UTF-8: byte 0xE9 at byte offset 3: "},
      {std::string("a\0b?", 4), "not text: NUL byte at byte offset 1: want UTF-8 text"},
      {std::string("\xFF\xFEW\0h\0y\0?\0", 10), "it is UTF-16LE: convert it"},
      {std::string("W\0h\0e\0r\0e\0?\0", 12), "it seems to be UTF-16"}};
  for (const auto& [question, error] : questions) {
    const std::string list = question + "\nWhat cuts wood?\n";
    const ProgramResult text = Command(Ask("-"), list);
    EXPECT_EQ(text.code, 1);
    EXPECT_THAT(text.err, AllOf(HasSubstr("line 1: the question: "), HasSubstr(error)));
    EXPECT_THAT(Lines(text.out), SizeIs(2));
    EXPECT_THAT(text.err, Not(HasSubstr("line 2: the question")));
    const ProgramResult json = Command(Ask("-", {"--json"}), list);
    EXPECT_TRUE(Json::parse(Lines(json.out)[0]).contains("error"));
    EXPECT_TRUE(Json::parse(Lines(json.out)[1]).contains("answer"));
  }
  EXPECT_EQ(Command(Ask("caf\xE9?")).code, 1);
  EXPECT_THAT(Command({"chat"}, "caf\xE9?\n").err, HasSubstr("the question: not UTF-8"));
  EXPECT_THAT(Command(Ask("What?", {"--system", "\xFF"})).err,
              HasSubstr("the system message: not UTF-8"));
}

TEST_F(QuestionTest, AModelThatReadsNothingSaysSo) {
  ASSERT_EQ(Fovea({"ingest", "--memory", memory_, "--model", "tiny", otter_, tools_}).code, 0);
  const ProgramResult reads = Command(Ask("Where does the otter live?", {"--json"}));
  EXPECT_THAT(reads.err, HasSubstr("answers from passages found by their words (BM25)"));
  EXPECT_THAT(Notes(reads), IsEmpty());
  for (const Arguments& options : {Arguments{"--json", "--reread", "0"}, {"--json", "--raw"}}) {
    const ProgramResult result = Command(Ask("Where does the otter live?", options));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr("its answers are its own"), Not(HasSubstr("BM25"))));
    EXPECT_THAT(Notes(result), Contains(HasSubstr("nothing that is stored was read")));
  }
}

TEST_F(QuestionTest, ADeviceIsNamedOnceInItsError) {
  const ProgramResult none = Fovea({"ask", "--no-memory", "--device", "cuda:x", "Q"});
  EXPECT_THAT(none.err, HasSubstr("--device: \"cuda:x\": want cpu, cuda or cuda:N"));
  const ProgramResult precision = Fovea({"ask", "--no-memory", "--precision", "bfloat16", "Q"});
  EXPECT_EQ(precision.code, 2);
  EXPECT_THAT(precision.err, AllOf(HasSubstr("of device 'cpu'"), Not(HasSubstr("--device cpu"))));
}

TEST_F(QuestionTest, TheDefaultModelWithoutItsAdapterIsWarnedAbout) {
  const fs::path model = folder_ / "home/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  ASSERT_TRUE(memory::WriteTinyModel(model, /*seed=*/7, 2048).ok());
  const Arguments ingest = {"ingest", "--memory", memory_, "--json", "--quiet", otter_};
  const ProgramResult result = Fovea(ingest);
  ASSERT_EQ(result.code, 0) << result.err;
  const auto warning = HasSubstr("smollm2-135m-fot-5");
  EXPECT_THAT(result.err, warning);
  ASSERT_THAT(result.json()["warnings"], SizeIs(1));
  EXPECT_EQ(result.json()["warnings"][0]["source"], model.string());
  EXPECT_THAT(result.json()["warnings"][0]["warning"].get<std::string>(), warning);
  // It is known by then, and was asked for here.
  EXPECT_THAT(Fovea(ingest).err, IsEmpty());
  memory_ = Path("other");
  Arguments none = ingest;
  none[2] = memory_;
  none.insert(none.end(), {"--adapter", "none"});
  EXPECT_THAT(Fovea(none).err, IsEmpty());
}

}  // namespace
}  // namespace fovea::cli
