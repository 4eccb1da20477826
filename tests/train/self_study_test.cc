#include "train/self_study.h"

#include <gmock/gmock.h>

#include <functional>
#include <set>

#include "base/file.h"
#include "tests/answer/scripted_answerer.h"
#include "tests/answer/tiny_memory.h"
#include "texts/record_file.h"
#include "train/training_texts.h"

namespace fovea::train {
namespace {

using ::testing::HasSubstr;

// Says what a function says of the request's only message.
class Speaker final : public answer::ScriptedAnswerer {
 public:
  using Speak = std::function<std::string(const std::string& message, const answer::Request&)>;
  explicit Speaker(Speak speak) : speak_(std::move(speak)) {}

  absl::StatusOr<answer::Answer> Run(const answer::Request& request) const override {
    EXPECT_EQ(request.messages.size(), 1u);
    EXPECT_FALSE(request.options.use_memory);
    EXPECT_EQ(request.options.reread, 0);
    answer::Answer answer;
    answer.text = speak_(request.messages.back().content, request);
    answer.finish_reason = answer.text.empty() ? "length" : "stop";
    return answer;
  }

 private:
  const Speak speak_;
};

class SelfStudyTest : public answer::TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    LoadModel();
    OpenMemory();
    IngestText("attic.txt", "The lamp of Marta is in the attic." + std::string(90, '.'));
    IngestText("cellar.txt", "The coat of Piet is in the cellar." + std::string(90, '.'));
    IngestText("short.txt", "Nothing to ask.");
  }
  absl::StatusOr<SelfStudyResult> Study(Speaker::Speak speak, SelfStudyOptions options = {}) {
    const Speaker speaker(std::move(speak));
    return WriteSelfStudy(memory_.get(), speaker, options, file(), Progress());
  }
  std::filesystem::path file() const { return folder_ / "study.jsonl"; }
  std::vector<texts::Record> Records() const {
    std::vector<texts::Record> records;
    const absl::Status status =
        texts::ReadRecords(file(), [&](texts::Record record) -> absl::StatusOr<bool> {
          records.push_back(std::move(record));
          return true;
        });
    EXPECT_TRUE(status.ok()) << status;
    return records;
  }
  static bool Asks(const std::string& message) {
    return message.ends_with(std::string("\n\n") + std::string(kAskForQuestion));
  }
};

TEST_F(SelfStudyTest, KeepsQuestionsWithWhatIsSaidFromTheirPassage) {
  std::set<uint64_t> seeds;
  const auto result = Study([&](const std::string& message, const answer::Request& request) {
    if (Asks(message)) {
      EXPECT_GT(request.options.temperature, 0.0f);
      EXPECT_TRUE(seeds.insert(request.options.seed).second);
      return " \"Where is the thing " + std::to_string(request.options.seed) + "?\"\nand more";
    }
    EXPECT_EQ(request.options.temperature, 0.0f);
    EXPECT_THAT(message, HasSubstr("?"));
    return std::string(message.find("lamp") != std::string::npos ? "in the attic" : "the cellar");
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->n_passages, 2);
  EXPECT_EQ(result->n_asked, 8);
  EXPECT_EQ(result->n_kept, 8);
  const std::vector<texts::Record> records = Records();
  ASSERT_EQ(records.size(), 8u);
  // Each passage once before any again.
  EXPECT_NE(records[0].context, records[1].context);
  EXPECT_EQ(records[0].context, records[2].context);
  for (const texts::Record& record : records) {
    EXPECT_THAT(record.question, testing::MatchesRegex("Where is the thing [0-9]+\\?"));
    EXPECT_EQ(record.answers.front(),
              record.context.find("lamp") != std::string::npos ? "in the attic" : "the cellar");
  }
}

TEST_F(SelfStudyTest, LeavesOutWhatTeachesNothing) {
  // The same question again, whatever its case.
  const auto same = Study([](const std::string& message, const answer::Request& request) {
    if (Asks(message)) return std::string(request.options.seed % 2 == 0 ? "Where?" : "WHERE");
    return std::string("the attic, the cellar");
  });
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->n_kept, 0);  // no passage holds both
  const auto once = Study([](const std::string& message, const answer::Request& request) {
    if (Asks(message)) return std::string(request.options.seed % 2 == 0 ? "Where?" : "WHERE");
    return std::string(message.find("lamp") != std::string::npos ? "attic" : "cellar");
  });
  ASSERT_TRUE(once.ok()) << once.status();
  EXPECT_EQ(once->n_kept, 2);
  // What was cut off, and nothing.
  const auto cut = Study([](const std::string& message, const answer::Request&) {
    return Asks(message) ? std::string() : std::string("attic");
  });
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->n_kept, 0);
  EXPECT_EQ(cut->n_asked, 8);
}

TEST_F(SelfStudyTest, WritesDocumentsAndSaysWhereThereIsNothing) {
  ASSERT_TRUE(WriteDocuments(memory_.get(), file(), Progress()).ok());
  const std::vector<texts::Record> records = Records();
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].title, "attic.txt");
  EXPECT_THAT(records[0].text, testing::StartsWith("The lamp of Marta"));
  const auto gone = memory_->RemoveSources(
      [](const storage::DocumentRecord&, const storage::SourceReference& source) {
        return source.title != "short.txt";
      });
  ASSERT_TRUE(gone.ok()) << gone.status();
  const auto result = Study([](const std::string&, const answer::Request&) { return "?"; });
  EXPECT_TRUE(absl::IsNotFound(result.status())) << result.status();
}

// The tiny model's questions mean nothing, but they go all the way through.
TEST_F(SelfStudyTest, AsksARealModel) {
  const auto answerer = answer::Answerer::Create(device_.get(), model_.get(), memory_.get());
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  const auto result =
      WriteSelfStudy(memory_.get(), **answerer, {.questions_per_passage = 2}, file(), Progress());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->n_asked, 4);
}

}  // namespace
}  // namespace fovea::train
