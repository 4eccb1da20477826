#include "texts/facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace fovea::texts {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(FactsTest, SentencesAnswerTheirQuestions) {
  const FactMaker facts{FactWords{}};
  Random random(1, 2);
  std::set<size_t> kinds;
  for (int i = 0; i < 2000; ++i) {
    const Fact fact = facts.Make(random);
    kinds.insert(fact.kind);
    EXPECT_THAT(fact.sentence + fact.question + fact.answer, Not(HasSubstr("{")));
    EXPECT_THAT(fact.question, testing::EndsWith("?"));
    // The answer is in the sentence, but for an article or preposition that it may begin with.
    const size_t space = fact.answer.find(' ');
    const bool is_there = fact.sentence.find(fact.answer) != std::string::npos ||
                          (space != std::string::npos &&
                           fact.sentence.find(fact.answer.substr(space + 1)) != std::string::npos);
    EXPECT_TRUE(is_there) << fact.sentence << " | " << fact.answer;
    EXPECT_THAT(fact.question, Not(HasSubstr(fact.answer)));
  }
  EXPECT_EQ(kinds.size(), FactMaker::n_kinds());
}

TEST(FactsTest, ALookalikeAsksForSomethingElse) {
  const FactMaker facts{FactWords{}};
  Random random(3, 4);
  for (int i = 0; i < 2000; ++i) {
    const Fact fact = facts.Make(random);
    const Fact like = facts.MakeLike(fact, random);
    EXPECT_EQ(like.kind, fact.kind);
    EXPECT_NE(like.question, fact.question);
    EXPECT_NE(like.sentence, fact.sentence);
    EXPECT_NE(like.answer, fact.answer);
  }
}

TEST(FactsTest, TheSameSeedGivesTheSameFacts) {
  const FactMaker facts{FactWords{}};
  Random a(5, 6), b(5, 6), c(5, 7);
  const std::string first = facts.Make(a).sentence;
  EXPECT_EQ(facts.Make(b).sentence, first);
  EXPECT_NE(facts.Make(c).sentence, first);
}

}  // namespace
}  // namespace fovea::texts
