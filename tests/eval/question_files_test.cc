#include "eval/question_files.h"

#include <set>

#include "gmock/gmock.h"
#include "tests/eval/tiny_subject.h"

namespace fovea::eval {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class QuestionFilesTest : public TinySubjectTest {
 protected:
  std::filesystem::path WriteRecords() const {
    std::string lines;
    for (int i = 0; i < 20; ++i) {
      lines += StrCat(R"({"context": "Room )", i / 2, R"( is blue.", "question": "Question )", i,
                      R"(?", "answers": ["blue", "sky)", i, "\"]}\n");
    }
    return Write("questions.jsonl", lines);
  }
};

TEST_F(QuestionFilesTest, ContextsAreDocumentsOnce) {
  const auto all = ReadQuestions({WriteRecords()}, {.n_questions = 100, .seed = 1}, 0);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(all->questions, SizeIs(20));
  EXPECT_THAT(all->documents, SizeIs(10));
  std::map<std::string, std::string> texts;
  for (const Document& document : all->documents) texts[document.source] = document.text;
  for (const Question& question : all->questions) {
    EXPECT_EQ(texts.at(question.source), question.passage);
    EXPECT_THAT(question.answers, SizeIs(2));
  }
}

TEST_F(QuestionFilesTest, TheSeedChooses) {
  const auto texts_of = [&](uint64_t seed, int64_t n_passages) {
    const auto set = ReadQuestions({WriteRecords()}, {.n_questions = 3, .seed = seed}, n_passages);
    EXPECT_TRUE(set.ok()) << set.status();
    EXPECT_THAT(set->questions, SizeIs(3));
    if (n_passages > 0) {
      EXPECT_THAT(set->documents, SizeIs(n_passages));
    }
    std::set<std::string> texts;
    for (const Question& question : set->questions) texts.insert(question.text);
    return texts;
  };
  EXPECT_EQ(texts_of(1, 0), texts_of(1, 7));
  EXPECT_NE(texts_of(1, 0), texts_of(2, 0));
}

TEST_F(QuestionFilesTest, StoriesEndWhereTheQuestionStands) {
  const auto path = Write("qa1.txt",
                          "1 Mary went to the hall.\n2 Where is Mary? \thall\t1\n"
                          "3 Mary went to the attic.\n4 Where is Mary? \tattic\t3\n"
                          "1 John is here.\n2 Who is here?\tJohn\t1\n");
  const auto set = ReadStories({path}, {.n_questions = 10, .seed = 0});
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_THAT(set->questions, SizeIs(3));
  std::map<std::string, const Question*> by_answer;
  for (const Question& question : set->questions) {
    by_answer[question.answers.front()] = &question;
    EXPECT_THAT(question.scope.collections, ElementsAre(question.source));
  }
  EXPECT_EQ(by_answer.at("hall")->passage, "Mary went to the hall.\n");
  EXPECT_EQ(by_answer.at("hall")->text, "Where is Mary?");
  EXPECT_EQ(by_answer.at("attic")->passage, "Mary went to the hall.\nMary went to the attic.\n");
  EXPECT_EQ(by_answer.at("John")->passage, "John is here.\n");
  for (const char* wrong : {"Mary went\n", "1 Where?\thall\t1\n", "", "1 Mary went.\n"}) {
    const absl::Status status = ReadStories({Write("wrong.txt", wrong)}, {}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr("wrong.txt"));
  }
}

TEST_F(QuestionFilesTest, NaturalQuestionsShareTheirPassages) {
  const auto path = Write(
      "nq.jsonl",
      R"({"question": "a?", "answers": ["x"], "ctxs": [{"title": "T", "text": "gold", "isgold": true},)"
      R"( {"title": "U", "text": "other", "isgold": false}]})"
      "\n"
      R"({"question": "b?", "answers": ["y"], "ctxs": [{"title": "U", "text": "other", "hasanswer": true},)"
      R"( {"title": "V", "text": "more", "hasanswer": true}]})");
  const auto set = ReadNaturalQuestions({path}, {});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_THAT(set->documents, SizeIs(3));
  for (const Question& question : set->questions) {
    EXPECT_EQ(question.passage, question.text == "a?" ? "T\ngold" : "U\nother");
  }
  for (const char* wrong : {R"({"question": "a?"})", "nothing", "",
                            R"({"question": "a?", "answers": ["x"], "ctxs": [{"text": "t"}]})"}) {
    EXPECT_THAT(
        std::string(ReadNaturalQuestions({Write("wrong.jsonl", wrong)}, {}).status().message()),
        HasSubstr("wrong.jsonl"))
        << wrong;
  }
}

TEST_F(QuestionFilesTest, ConversationsAreCollectionsOfSessions) {
  const auto path = Write("locomo.json", R"([{"sample_id": "c1", "conversation": {
    "speaker_a": "Ann", "session_1_date_time": "1 May", "session_1": [
      {"speaker": "Ann", "dia_id": "D1:1", "text": "I have a dog."},
      {"speaker": "Bob", "dia_id": "D1:2", "text": "Fine."}],
    "session_2_date_time": "2 May", "session_2": [
      {"speaker": "Bob", "dia_id": "D2:1", "text": "It barks."}]},
    "qa": [{"question": "What has Ann?", "answer": "a dog", "evidence": ["D1:1"], "category": 4},
           {"question": "How many?", "answer": 1, "evidence": ["D2:1", "D1:2"], "category": 1},
           {"question": "Who lies?", "answer": "no one", "evidence": ["D1:1"], "category": 5},
           {"question": "Why?", "answer": "x", "evidence": [], "category": 2}]}])");
  const auto set = ReadConversations({path}, {});
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_THAT(set->documents, SizeIs(2));
  EXPECT_EQ(set->documents[0].text, "1 May\nAnn: I have a dog.\nBob: Fine.\n");
  ASSERT_THAT(set->questions, SizeIs(2));
  EXPECT_EQ(set->n_left_out, 1);
  for (const Question& question : set->questions) {
    EXPECT_THAT(question.scope.collections, ElementsAre("conversation c1"));
    const bool is_dog = question.text == "What has Ann?";
    const Document& document = set->documents[is_dog ? 0 : 1];
    EXPECT_EQ(question.source, document.source);
    EXPECT_EQ(document.text.substr(question.begin, question.end - question.begin),
              is_dog ? "Ann: I have a dog.\n" : "Bob: It barks.\n");
    EXPECT_THAT(question.answers, ElementsAre(is_dog ? "a dog" : "1"));
  }
  EXPECT_EQ(set->questions.front().passage.substr(0, 2),
            set->questions.front().text == "What has Ann?" ? "1 " : "2 ");
  for (const char* wrong : {"{", "[{}]", "[]"}) {
    EXPECT_THAT(std::string(ReadConversations({Write("wrong.json", wrong)}, {}).status().message()),
                AllOf(HasSubstr("wrong.json"), HasSubstr("LoCoMo"), Not(HasSubstr("exception"))))
        << wrong;
  }
}

TEST_F(QuestionFilesTest, NoFilesAreSaid) {
  for (const absl::Status& status :
       {ReadQuestions({}, {}, 0).status(), ReadStories({}, {}).status(),
        ReadNaturalQuestions({}, {}).status(), ReadConversations({}, {}).status()}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr("--questions"));
  }
  const auto books = ReadQuestions({WriteBooks()}, {}, 0);
  EXPECT_THAT(std::string(books.status().message()), HasSubstr("context"));
}

}  // namespace
}  // namespace fovea::eval
