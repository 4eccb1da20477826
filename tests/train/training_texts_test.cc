#include "train/training_texts.h"

#include <gmock/gmock.h>
#include <zstd.h>

#include "tests/train/tiny_texts.h"

namespace fovea::train {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class TrainingTextsTest : public TinyTextsTest {};

TEST_F(TrainingTextsTest, ReadsBooksAndQuestionsAndFindsWords) {
  const TrainingTexts texts = Texts();
  ASSERT_EQ(texts.books.size(), 1u);
  EXPECT_GT(texts.books[0].size(), 20000u);
  ASSERT_EQ(texts.passages.size(), 3u);  // one for each context
  EXPECT_EQ(texts.passages[0].questions.size(), 2u);
  const Exchange& exchange = texts.passages[0].questions[0];
  EXPECT_EQ(exchange.reply, "the attic");
  EXPECT_THAT(tokenizer_->Decode(exchange.prompt), HasSubstr("Where is the lamp?"));
  EXPECT_EQ(tokenizer_->Decode(exchange.answer), "the attic");
  EXPECT_TRUE(tokenizer_->IsEnd(exchange.answer.back()));
  EXPECT_THAT(texts.words.names, Contains("Piet"));
  EXPECT_THAT(texts.words.names, Contains("Grenna"));
  EXPECT_THAT(texts.words.places, Contains("cellar"));
  EXPECT_THAT(texts.words.things, Contains("coat"));
}

TEST_F(TrainingTextsTest, ReadsCompressedFiles) {
  std::ifstream file(folder_ / "books.jsonl");
  const std::string plain((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::string packed(ZSTD_compressBound(plain.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
  const auto texts = Read({Write("b.jsonl.zst", packed)});
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_EQ(texts->books, Texts().books);
  for (const std::string& wrong :
       {packed.substr(0, packed.size() / 2), "nothing of zstd" + packed}) {
    const absl::Status status = Read({Write("wrong.zst", wrong)}).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("wrong.zst"));
  }
}

TEST_F(TrainingTextsTest, CutsLongContextsAroundTheirAnswers) {
  std::string context;
  for (int i = 0; i < 600; ++i) context += "word" + std::to_string(i) + " ";
  std::string records;
  for (const char* answer : {"word0 word1", "word300", "word599", "nowhere"}) {
    records +=
        nlohmann::json{{"context", context}, {"question", "Which?"}, {"answers", {answer}}}.dump() +
        "\n";
  }
  const auto texts = Read({Write("long.jsonl", records), folder_ / "questions.jsonl"});
  ASSERT_TRUE(texts.ok()) << texts.status();
  ASSERT_EQ(texts->passages.size(), 6u);  // the last one's answer is not there
  EXPECT_EQ(texts->file_begins, (std::vector<size_t>{0, 3}));
  for (size_t i = 0; i < 3; ++i) {
    const Passage& passage = texts->passages[i];
    EXPECT_LT(passage.text.size(), 1600u);
    EXPECT_THAT(context, HasSubstr(passage.text));
    EXPECT_THAT(passage.text, HasSubstr(passage.questions[0].reply));
    EXPECT_TRUE(passage.text.starts_with("word")) << passage.text.substr(0, 20);
  }
}

TEST_F(TrainingTextsTest, SaysWhatIsWrongWhere) {
  for (const auto& [text, word] : {std::pair{"", "no records"},
                                   {"{\"text\": \"a\"}\n{\"text\": 3}\n", "line 2"},
                                   {"[1]\n", "line 1"},
                                   {"{\"context\": \"a\", \"question\": \"b\"}", "answers"}}) {
    const absl::Status status = Read({Write("wrong.jsonl", text)}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("wrong.jsonl"), HasSubstr(word)));
  }
  EXPECT_TRUE(absl::IsNotFound(Read({folder_ / "none.jsonl"}).status()));
}

}  // namespace
}  // namespace fovea::train
