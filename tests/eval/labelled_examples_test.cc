#include "eval/labelled_examples.h"

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class LabelledExamplesTest : public TinySubjectTest {
 protected:
  std::filesystem::path WriteLabels(const std::string& name, int n) const {
    std::string lines;
    for (int i = 0; i < n; ++i) lines += StrCat("NUM:k", i % 3, " How many are ", name, i, " ?\n");
    return Write(name, lines);
  }
  ExamplesOptions Options() {
    return {.common = {.ways = {.ways = {"closed", "memory", "bm25"},
                                .modes = {"exact"},
                                .max_tokens = 4},
                       .tokens = {},
                       .texts = {},
                       .seed = 0,
                       .visit = Listen()},
            .examples = WriteLabels("train", 40),
            .questions = WriteLabels("test", 9),
            .n_examples = {0, 10, 30},
            .n_local = 2,
            .n_questions = 5};
  }
};

TEST_F(LabelledExamplesTest, ReadsLabelsListsAndLines) {
  const auto labels =
      ReadExamples(Write("a", "HUM:desc Who was Galileo ?\r\n\nNUM:dist How far ?"));
  ASSERT_TRUE(labels.ok()) << labels.status();
  ASSERT_THAT(*labels, SizeIs(2));
  EXPECT_EQ((*labels)[0].question, "Who was Galileo ?");
  EXPECT_THAT((*labels)[1].answers, ElementsAre("NUM:dist"));
  EXPECT_TRUE((*labels)[1].is_label);
  const auto list = ReadExamples(Write("b",
                                       "[\n{\"question\": \"q\", \"answers\": [\"x\", \"y\"]},\n"
                                       "{\"question\": \"none\", \"answers\": []}]"));
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_THAT(*list, SizeIs(1));
  EXPECT_THAT(list->front().answers, ElementsAre("x", "y"));
  EXPECT_FALSE(list->front().is_label);
  const auto lines = ReadExamples(Write("c", R"({"question": "q", "label": "l"})"));
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_TRUE(lines->front().is_label);
  for (const char* wrong : {"", "label\n", "[1]", "[", "{\"question\": \"q\"}"}) {
    const absl::Status status = ReadExamples(Write("wrong", wrong)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr("want")) << wrong;
  }
  EXPECT_THAT(std::string(ReadExamples("").status().message()), HasSubstr("--examples"));
}

TEST_F(LabelledExamplesTest, TheMemoryHoldsSoManyExamples) {
  const auto report = RunExamples(subject_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(1 + 2 + 2));
  EXPECT_EQ(Text(report->rows[0], "way"), "closed");
  EXPECT_EQ(Value(report->rows[0], "tokens"), 0.0);
  EXPECT_EQ(Value(report->rows[3], "examples"), 30.0);
  EXPECT_GT(Value(report->rows[3], "tokens"), 2 * Value(report->rows[1], "tokens"));
  ASSERT_THAT(asked_, SizeIs(5 * 5));
  // Two examples stand in the prompt; none where some are found.
  EXPECT_THAT(asked_.front().text,
              testing::MatchesRegex("Question: .*\nType: NUM:k.\n\nQuestion: .*\nType: NUM:k.\n\n"
                                    "Question: .*\nType:"));
  EXPECT_THAT(asked_.back().text, testing::MatchesRegex("Question: How many are test. \\?\nType:"));
  subject_.folder = folder_ / "others";
  const auto again = RunExamples(subject_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Written(*report), Written(*again));
}

TEST_F(LabelledExamplesTest, APerfectAnswererHasAllAndABrokenOneNone) {
  AnswerFromList();
  const auto broken = RunExamples(subject_, Options());
  ASSERT_TRUE(broken.ok()) << broken.status();
  // The label is the first line; what follows it does not count.
  for (const Question& question : asked_) {
    known_[question.text].answer = StrCat(" ", question.answers[0], "\nNUM:other");
  }
  const auto perfect = RunExamples(subject_, Options());
  ASSERT_TRUE(perfect.ok()) << perfect.status();
  for (size_t i = 0; i < perfect->rows.size(); ++i) {
    EXPECT_EQ(Value(broken->rows[i], "exact match"), 0.0);
    EXPECT_EQ(Value(perfect->rows[i], "exact match"), 100.0);
  }
}

TEST_F(LabelledExamplesTest, SaysWhereThereAreTooFew) {
  ExamplesOptions options = Options();
  options.n_examples = {39};
  EXPECT_THAT(std::string(RunExamples(subject_, options).status().message()),
              testing::AllOf(HasSubstr("train"), HasSubstr("40"), HasSubstr("--count")));
  options = Options();
  options.common.ways.ways = {"passage"};
  EXPECT_THAT(std::string(RunExamples(subject_, options).status().message()),
              HasSubstr("leave \"passage\" out"));
}

}  // namespace
}  // namespace fovea::eval
