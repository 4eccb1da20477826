#include "eval/questions.h"

#include "eval/natural.h"
#include "eval/question_files.h"
#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class QuestionsTest : public TinySubjectTest {
 protected:
  void SetUp() override {
    TinySubjectTest::SetUp();
    for (const char* animal : {"otter", "badger", "heron", "mole"}) {
      const std::string source = StrCat(animal, ".txt");
      set_.documents.push_back(
          {.source = source,
           .text = StrCat("The ", animal, " lives in room ", animal, "-7, which is far away."),
           .collection = animal});
      set_.questions.push_back({.text = StrCat("Where does the ", animal, " live?"),
                                .answers = {StrCat("room ", animal, "-7")},
                                .passage = set_.documents.back().text,
                                .source = source,
                                .scope = {.collections = {animal}, .documents = {}}});
    }
  }
  CommonOptions Options() {
    return {.ways = {.ways = {"closed", "memory", "bm25", "default", "passage"},
                     .modes = {"approximate"},
                     .max_tokens = 4},
            .tokens = {0, 1000},
            .texts = {WriteBooks()},
            .seed = 0,
            .visit = Listen()};
  }

  QuestionSet set_;
};

TEST_F(QuestionsTest, EveryWayAndSizeHasARow) {
  const auto report = RunQuestionSet(subject_, "questions", set_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(2 * 5));
  for (size_t i = 0; i < report->rows.size(); ++i) {
    const Row& row = report->rows[i];
    EXPECT_EQ(std::get<Score>(Get(row, "F1")).n, 4);
    EXPECT_EQ(Value(row, "tokens"), Value(report->rows[i / 5 * 5], "tokens"));
    // A scope of one short document leaves no other passage to name.
    if (Text(row, "way") == "bm25" || (i < 5 && Text(row, "way") == "memory, approximate")) {
      EXPECT_EQ(Value(row, "named"), 100.0) << i;
    }
  }
  EXPECT_EQ(Value(report->rows[5], "tokens"), Value(report->rows[0], "tokens") + 1000);
  subject_.folder = folder_ / "others";
  const auto again = RunQuestionSet(subject_, "questions", set_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Written(*report), Written(*again));
}

TEST_F(QuestionsTest, APerfectAnswererHasAllAndABrokenOneNone) {
  AnswerFromList();
  CommonOptions options = Options();
  options.ways.ways = {"memory", "closed"};
  options.tokens = {0};
  const auto broken = RunQuestionSet(subject_, "questions", set_, options);
  ASSERT_TRUE(broken.ok()) << broken.status();
  {  // the memory has one writer at a time
    const auto memory = TestMemory::Open(&subject_, "questions-0");
    ASSERT_TRUE(memory.ok()) << memory.status();
    for (const storage::DocumentRecord& document : (*memory)->memory().Current()->documents) {
      for (const Question& question : set_.questions) {
        if (question.source != document.source()) continue;
        known_[question.text] = {.answer = question.answers.front(),
                                 .source = PassageOf(document.id, 3, 9)};
      }
    }
  }
  ASSERT_THAT(known_, SizeIs(4));
  const auto perfect = RunQuestionSet(subject_, "questions", set_, options);
  ASSERT_TRUE(perfect.ok()) << perfect.status();
  for (const char* measure : {"F1", "exact match", "right", "named"}) {
    EXPECT_EQ(Value(broken->rows[0], measure), 0.0) << measure;
    EXPECT_EQ(Value(perfect->rows[0], measure), 100.0) << measure;
  }
  // One of four knows its answer, but names another document; half of its words are others.
  for (auto& [question, known] : known_) {
    if (question.find("otter") == std::string::npos) {
      known.answer = "nobody knows";
    } else {
      known.answer += " or elsewhere";
      known.source.document = "another";
    }
  }
  const auto quarter = RunQuestionSet(subject_, "questions", set_, options);
  ASSERT_TRUE(quarter.ok()) << quarter.status();
  EXPECT_NEAR(Value(quarter->rows[0], "F1"), 100.0 * 2 * 2 / (2 + 4) / 4, 1e-9);
  EXPECT_EQ(Value(quarter->rows[0], "exact match"), 0.0);
  EXPECT_EQ(Value(quarter->rows[0], "right"), 25.0);
  EXPECT_EQ(Value(quarter->rows[0], "named"), 75.0);
}

class NaturalTest : public QuestionsTest {
 protected:
  void SetUp() override {
    QuestionsTest::SetUp();
    std::filesystem::create_directories(folder_ / "notes" / "old");
    Write("notes/mill.txt", "The mill\nstands   by the river. It has 3 wheels.\n");
    Write("notes/old/barn.md", "# Barn\n\nThe barn is red.\n");
  }
  NaturalOptions NotesOptions(const std::string& questions) {
    Write("notes/questions.jsonl", questions);
    NaturalOptions options{.common = Options(), .folder = folder_ / "notes"};
    options.common.tokens = {0};
    return options;
  }
};

TEST_F(NaturalTest, QuotesAreFoundWhateverTheWhiteSpace) {
  const auto report = RunNatural(
      subject_,
      NotesOptions(
          R"({"question": "Where is the mill?", "answers": ["river"], "document": "mill.txt", "quote": "The mill stands by the river"})"
          "\n"
          R"({"question": "Is the barn red?", "answers": ["red"], "document": "old/barn.md", "quote": "barn is red"})"
          "\n"
          R"({"question": "Gone?", "answers": ["x"], "document": "gone.txt", "quote": "x"})"));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->rows, SizeIs(5));
  ASSERT_GE(asked_.size(), 2u);
  EXPECT_EQ(asked_[0].begin, 0u);
  EXPECT_EQ(asked_[0].end, std::string("The mill\nstands   by the river").size());
  EXPECT_THAT(asked_[0].passage, HasSubstr("It has 3 wheels."));
  EXPECT_EQ(asked_[1].source, "old/barn.md");
  EXPECT_EQ(Value(report->settings, "left out"), 1.0);
  EXPECT_EQ(Text(report->settings, "not in the folder"), "gone.txt");
}

TEST_F(NaturalTest, SaysWhatIsWrongWithAQuestion) {
  for (const auto& [line, word] :
       {std::pair{R"({"question": "q", "answers": ["a"], "document": "mill.txt"})", "quote"},
        {R"({"question": "q", "answers": ["a"], "document": "mill.txt", "quote": "a moon"})",
         "a moon"},
        {R"({"question": "q", "answers": ["a"], "document": "gone.txt", "quote": "a"})",
         "none of its 1 questions is about a document of the folder: there is no gone.txt"},
        {"no JSON", "line 1"}}) {
    const absl::Status status = RunNatural(subject_, NotesOptions(line)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("questions.jsonl"), HasSubstr(word)));
  }
  std::filesystem::remove(folder_ / "notes/questions.jsonl");
  NaturalOptions options{.common = Options(), .folder = folder_ / "notes"};
  EXPECT_TRUE(absl::IsNotFound(RunNatural(subject_, options).status()));
}

}  // namespace
}  // namespace fovea::eval
