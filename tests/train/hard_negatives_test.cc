#include "train/hard_negatives.h"

#include <gmock/gmock.h>

#include <map>
#include <sstream>

#include "tests/train/tiny_texts.h"

namespace fovea::train {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A word is an id here.
class HardNegativesTest : public testing::Test {
 protected:
  void Add(const std::string& text, const std::string& question, const std::string& answer) {
    Passage passage{.text = text, .ids = Ids(text)};
    Exchange exchange;
    exchange.question = question;
    exchange.reply = answer;
    exchange.prompt = Ids(question);
    passage.questions.push_back(std::move(exchange));
    passages_.push_back(std::move(passage));
  }
  Tokens Ids(const std::string& text) {
    Tokens ids;
    std::istringstream words(text);
    for (std::string word; words >> word;) {
      ids.push_back(ids_.emplace(word, static_cast<int32_t>(ids_.size())).first->second);
    }
    return ids;
  }

  std::map<std::string, int32_t> ids_;
  std::vector<Passage> passages_;
};

TEST_F(HardNegativesTest, FindsWhatTheWordsOfQuestionsFindAndNotWhatAnswersThem) {
  Add("the red lamp of anna stood in the attic", "where stood the red lamp of anna", "attic");
  Add("a red lamp that boris owned hung over water", "who owned a lamp", "boris");
  Add("an old wagon went to town at noon", "when went the wagon", "noon");
  // Versions of the first: the same words, and other words with the same answer.
  Add("the red lamp of anna stood up in the big attic", "what stood", "lamp");
  Add("anna put her red lamp into that attic there", "who did", "anna");
  Add("lamp shops sell any kind now for cash", "what do shops sell", "kind");
  for (int i = 0; i < 20; ++i) {
    Add("other words number " + std::to_string(i), "which number " + std::to_string(i), "none");
  }
  const auto similar = FindSimilarPassages(passages_, 2);
  ASSERT_THAT(similar, SizeIs(passages_.size()));
  EXPECT_THAT(similar[0], ElementsAre(1, 5));
  for (size_t p = 0; p < passages_.size(); ++p) {
    EXPECT_THAT(similar[p], testing::Not(testing::Contains(p)));
  }
  EXPECT_THAT(FindSimilarPassages({}, 2), IsEmpty());
}

TEST_F(HardNegativesTest, NeighboursAreOfTheSameFileAndDoNotAnswer) {
  Add("the red lamp of anna stood in the attic", "where stood the red lamp", "attic");
  Add("boris owned some wagons", "who owned wagons", "boris");
  Add("another sentence about that attic", "what is it about", "sentence");
  Add("at noon came rain", "when came rain", "noon");
  Add("a bell rang", "what rang", "bell");
  Add("of another file", "of what", "file");
  const auto neighbours = FindNeighbours(passages_, {0, 5}, 3);
  ASSERT_THAT(neighbours, SizeIs(6));
  EXPECT_THAT(neighbours[0], ElementsAre(1, 3));  // the third holds its answer
  EXPECT_THAT(neighbours[3], ElementsAre(2, 4, 1, 0));
  EXPECT_THAT(neighbours[4], ElementsAre(3, 2, 1));
  EXPECT_THAT(neighbours[5], IsEmpty());
  EXPECT_THAT(FindNeighbours({}, {}, 3), IsEmpty());
}

}  // namespace
}  // namespace fovea::train
