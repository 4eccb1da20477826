#include "eval/planted_facts.h"

#include <set>

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class PlantedFactsTest : public TinySubjectTest {
 protected:
  FactsOptions Options(const std::vector<int64_t>& tokens = {6000}) {
    return {.common = {.ways = {.ways = {"memory", "bm25"},
                                .modes = {"exact", "dense"},
                                .max_tokens = 4},
                       .tokens = tokens,
                       .texts = {WriteBooks()},
                       .seed = 3,
                       .visit = Listen()},
            .n_facts = 12,
            .n_lookalikes = 1,
            .n_trials = 2};
  }
};

TEST_F(PlantedFactsTest, FactsLieInTheBooksWhereQuestionsSay) {
  FactsOptions options = Options({20, 6000});  // 24 sentences into 20 bytes of book, too
  options.n_trials = 1;
  const auto report = RunFacts(subject_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_THAT(report->rows, SizeIs(2 * 3));
  EXPECT_GT(Value(report->rows[3], "tokens"), 6000 + 24 * 20);
  ASSERT_THAT(asked_, SizeIs(2 * 3 * 12));
  std::set<std::string> texts;
  for (const Question& question : asked_) texts.insert(question.text);
  EXPECT_THAT(texts, SizeIs(12));  // the same facts in both sizes, whatever the way
  const auto memory = TestMemory::Open(&subject_, "facts-6000");
  ASSERT_TRUE(memory.ok()) << memory.status();
  const auto generation = (*memory)->memory().Current();
  for (const Question& question : std::vector(asked_.begin() + 36, asked_.end())) {
    std::string text;
    for (const storage::DocumentRecord& document : generation->documents) {
      if (document.source() != question.source) continue;
      ASSERT_TRUE(memory::ReadText(*generation, document, [&](std::string_view piece) {
                    text += piece;
                    return absl::OkStatus();
                  }).ok());
    }
    EXPECT_EQ(text.substr(question.begin, question.end - question.begin), question.passage);
  }
}

TEST_F(PlantedFactsTest, APerfectAnswererHasAllAndABrokenOneNone) {
  AnswerFromList();
  FactsOptions options = Options();
  const auto broken = RunFacts(subject_, options);
  ASSERT_TRUE(broken.ok()) << broken.status();
  for (const Row& row : broken->rows) {
    EXPECT_EQ(Value(row, "right"), 0.0);
    EXPECT_EQ(Value(row, "named"), 0.0);
  }
  for (const Question& question : asked_) {
    KnownAnswers::Known& known = known_[question.text];
    known.answer = StrCat("It is ", question.answers.back(), ".");
  }
  const auto perfect = RunFacts(subject_, options);
  ASSERT_TRUE(perfect.ok()) << perfect.status();
  for (const Row& row : perfect->rows) {
    EXPECT_EQ(Value(row, "right"), 100.0);
    EXPECT_EQ(std::get<Score>(Get(row, "right")).n, 24);
    EXPECT_EQ(Value(row, "named"), 0.0);  // it names nothing
  }
}

TEST_F(PlantedFactsTest, TheSameSeedGivesTheSameReport) {
  const auto first = RunFacts(subject_, Options());
  subject_.folder = folder_ / "others";
  const auto again = RunFacts(subject_, Options());
  ASSERT_TRUE(first.ok() && again.ok()) << first.status() << again.status();
  EXPECT_EQ(Written(*first), Written(*again));
  FactsOptions options = Options();
  options.common.seed = 4;
  const auto other = RunFacts(subject_, options);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(first->text_hashes, other->text_hashes);
}

TEST_F(PlantedFactsTest, TooFewTextsAreSaid) {
  FactsOptions options = Options({10'000'000});
  absl::Status status = RunFacts(subject_, options).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("smaller --tokens"));
  options.common.tokens = {0};
  EXPECT_THAT(std::string(RunFacts(subject_, options).status().message()), HasSubstr("--tokens"));
  options.common.tokens = {6000};
  options.common.texts.clear();
  EXPECT_THAT(std::string(RunFacts(subject_, options).status().message()), HasSubstr("--texts"));
  options.common.texts = {folder_ / "none.jsonl"};
  EXPECT_TRUE(absl::IsNotFound(RunFacts(subject_, options).status()));
}

}  // namespace
}  // namespace fovea::eval
