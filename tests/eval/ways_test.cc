#include "eval/ways.h"

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class WaysTest : public TinySubjectTest {
 protected:
  absl::StatusOr<std::vector<Way>> Make(const std::vector<std::string>& names) {
    return MakeWays({.ways = names, .modes = {"approximate", "dense"}, .top_k = 5, .max_tokens = 7},
                    *model_);
  }
};

TEST_F(WaysTest, NamesBecomeOptions) {
  const auto ways = Make({"memory", "bm25:3", "both", "default", "closed", "passage"});
  ASSERT_TRUE(ways.ok()) << ways.status();
  ASSERT_THAT(*ways, SizeIs(7));
  std::vector<std::string> names;
  for (const Way& way : *ways) {
    names.push_back(way.name);
    EXPECT_EQ(way.options.max_tokens, 7);
    EXPECT_EQ(way.has_memory, way.options.use_memory);
    EXPECT_EQ(way.has_passage, way.name == "passage");
  }
  EXPECT_THAT(names, ElementsAre("memory, approximate", "memory, dense", "bm25:3", "both",
                                 "default", "closed", "passage"));
  EXPECT_EQ((*ways)[1].options.mode, memory::SearchMode::kDense);
  EXPECT_EQ((*ways)[1].options.top_k, 5);
  EXPECT_EQ((*ways)[1].options.reread, 0);
  EXPECT_EQ((*ways)[2].options.reread, 3);
  EXPECT_EQ((*ways)[2].options.reread_by, answer::RereadBy::kBm25);
  EXPECT_EQ((*ways)[2].options.reread_memory, false);
  EXPECT_EQ((*ways)[3].options.reread, 1);
  // As shipped: nothing is said.
  EXPECT_FALSE((*ways)[4].options.reread.has_value());
  EXPECT_FALSE((*ways)[4].options.mode.has_value());
}

TEST_F(WaysTest, OtherNamesAreErrorsThatSayWhichThereAre) {
  for (const char* name : {"memories", "bm25:0", "bm25:x", "both:", ""}) {
    const absl::Status status = Make({name}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("want"));
    EXPECT_FALSE(CheckWayName(name).ok());
  }
  EXPECT_TRUE(CheckWayName("attention:12").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Make({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      MakeWays({.ways = {"memory"}, .modes = {"quick"}}, *model_).status()));
}

TEST_F(WaysTest, AModelWithoutMemoryLayersIsToldSo) {
  LoadModel(/*with_memory_layers=*/false);
  for (const char* name : {"memory", "attention", "both"}) {
    EXPECT_THAT(std::string(Make({name}).status().message()), HasSubstr("--mem-layers")) << name;
  }
  EXPECT_TRUE(Make({"bm25", "closed", "default", "passage"}).ok());
}

TEST_F(WaysTest, TheJudgedPartIsWhatCounts) {
  Question question{.text = "q", .answers = {"12"}, .passage = ""};
  EXPECT_TRUE(Grade(question, "34 and 12").is_held);
  question.judged = AnswerPart::kFirstNumber;
  EXPECT_FALSE(Grade(question, "34 and 12").is_held);
  EXPECT_TRUE(Grade(question, " is 12, or 34").is_held);
  EXPECT_FALSE(Grade(question, "none").is_held);
  question.judged = AnswerPart::kFirstLine;
  EXPECT_TRUE(Grade(question, " \n12\nmore").is_exact);
  EXPECT_FALSE(Grade(question, "more\n12").is_exact);
}

TEST_F(WaysTest, AMemoryHoldsWhatItWasFilledWithLast) {
  const auto memory = TestMemory::Open(&subject_, "m");
  ASSERT_TRUE(memory.ok()) << memory.status();
  const std::vector<Document> first = {{.source = "a", .text = "Ants live in hills."},
                                       {.source = "b", .text = "Bees live in hives."}};
  ASSERT_TRUE((*memory)->Fill(first).ok());
  const std::string hash = (*memory)->TextHash();
  EXPECT_EQ((*memory)->n_tokens(), 38u);
  const std::vector<Document> second = {{.source = "a", .text = "Cats live in houses."}};
  ASSERT_TRUE((*memory)->Fill(second).ok());
  EXPECT_EQ((*memory)->n_tokens(), 20u);
  EXPECT_NE((*memory)->TextHash(), hash);
  ASSERT_TRUE((*memory)->Fill(first).ok());
  EXPECT_EQ((*memory)->TextHash(), hash);
  const std::vector<Document> empty = {{.source = "blank", .text = ""}};
  EXPECT_THAT(std::string((*memory)->Fill(empty).message()), HasSubstr("blank"));
  EXPECT_TRUE(absl::IsInvalidArgument((*memory)->Fill(
      std::vector<Document>{{.source = "a", .text = "one"}, {.source = "a", .text = "two"}})));
}

TEST_F(WaysTest, APassageThatIsTooLongIsSaidSo) {
  const auto memory = TestMemory::Open(&subject_, "m");
  ASSERT_TRUE(memory.ok()) << memory.status();
  const auto ways = Make({"passage"});
  ASSERT_TRUE(ways.ok());
  const Question question{
      .text = "Who?", .answers = {"x"}, .passage = std::string(kMaxPositions, 'x')};
  const auto outcomes = AskAll(subject_, **memory, {&question, 1}, ways->front(), nullptr);
  EXPECT_TRUE(absl::IsOutOfRange(outcomes.status())) << outcomes.status();
  EXPECT_THAT(std::string(outcomes.status().message()), HasSubstr("--ways"));
}

}  // namespace
}  // namespace fovea::eval
