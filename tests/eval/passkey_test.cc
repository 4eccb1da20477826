#include "eval/passkey.h"

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::SizeIs;

class PasskeyTest : public TinySubjectTest {
 protected:
  PasskeyOptions Options() {
    return {.common = {.ways = {.ways = {"memory", "closed"},
                                .modes = {"approximate", "exact", "dense"},
                                .max_tokens = 4},
                       .tokens = {1000, 2500},
                       .texts = {},
                       .seed = 3,
                       .visit = Listen()},
            .n_trials = 3};
  }
};

TEST_F(PasskeyTest, EverySizeAndWayHasARow) {
  const auto report = RunPasskey(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(2 * 4));
  for (const Row& row : report->rows) {
    EXPECT_EQ(std::get<Score>(Get(row, "right")).n, 3);
  }
  // A token a byte; filler in whole pieces.
  EXPECT_NEAR(Value(report->rows[0], "tokens"), 1000 + 200, 100);
  EXPECT_NEAR(Value(report->rows[4], "tokens"), 2500 + 200, 100);
  EXPECT_EQ(Text(report->rows[3], "way"), "closed");
  EXPECT_THAT(asked_, SizeIs(2 * 4 * 3));
  // Each key is another one, and stands where the question says.
  for (const Question& question : asked_) {
    EXPECT_NE(question.passage.find(StrCat("The pass key is ", question.answers[0], ".")),
              std::string::npos);
    EXPECT_EQ(question.end - question.begin, question.passage.size());
  }
  EXPECT_NE(asked_[0].answers, asked_[4].answers);
}

TEST_F(PasskeyTest, TheSameSeedGivesTheSameReport) {
  const auto first = RunPasskey(subject_, Options());
  const std::vector<Question> asked = std::exchange(asked_, {});
  subject_.folder = folder_ / "others";
  const auto again = RunPasskey(subject_, Options());
  ASSERT_TRUE(first.ok() && again.ok()) << first.status() << again.status();
  EXPECT_EQ(Written(*first), Written(*again));
  PasskeyOptions options = Options();
  options.common.seed = 4;
  asked_.clear();
  ASSERT_TRUE(RunPasskey(subject_, options).ok());
  EXPECT_NE(asked_[0].answers, asked[0].answers);
}

// What is right is right, and all else is wrong.
TEST_F(PasskeyTest, AnAnswererThatNeverAnswersHasNone) {
  AnswerFromList();
  const auto report = RunPasskey(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  for (const Row& row : report->rows) EXPECT_EQ(Value(row, "right"), 0.0);
}

TEST_F(PasskeyTest, AnAnswererThatReadsTheMemoryHasAll) {
  // It reads the documents of its memory, and continues the sentence as it stands there.
  class Reader final : public answer::ScriptedAnswerer {
   public:
    explicit Reader(memory::Memory* memory) : memory_(*memory) {}
    absl::StatusOr<answer::Answer> Run(const answer::Request& request) const override {
      answer::Answer answer;
      if (!request.options.use_memory) return answer;
      const auto generation = memory_.Current();
      const storage::DocumentRecord& document = generation->documents.front();
      std::string text;
      RETURN_IF_ERROR(memory::ReadText(*generation, document, [&](std::string_view piece) {
        text += piece;
        return absl::OkStatus();
      }));
      constexpr std::string_view kBefore = "The pass key is ";
      const size_t begin = text.find(kBefore) + kBefore.size();
      answer.text = " " + text.substr(begin, text.find('.', begin) - begin) + ". 7";
      answer.sources = {PassageOf(document.id, begin, begin + 1)};
      return answer;
    }

   private:
    memory::Memory& memory_;
  };
  subject_.create_answerer =
      [](compute::Device*, model::Transformer*,
         memory::Memory* memory) -> absl::StatusOr<std::unique_ptr<answer::Answerer>> {
    return std::make_unique<Reader>(memory);
  };
  const auto report = RunPasskey(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  for (const Row& row : report->rows) {
    const bool is_closed = Text(row, "way") == "closed";
    EXPECT_EQ(Value(row, "right"), is_closed ? 0.0 : 100.0);
    if (!is_closed) {
      EXPECT_EQ(Value(row, "named"), 100.0);
    }
  }
}

}  // namespace
}  // namespace fovea::eval
