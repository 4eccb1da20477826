// Passages for a text, without an answer.
#include "answer/answerer.h"
#include "gmock/gmock.h"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class SearchTest : public TinyMemoryTest {
 protected:
  void Fill() {
    OpenMemory();
    IngestText("otter", "The otter lives by the river. It eats fish.\n", "animals");
    IngestText("tools", "A hammer drives nails. A chisel cuts wood.\n", "tools");
    IngestText("badger", "The badger digs by the river at night.\n", "animals");
  }
  std::unique_ptr<Answerer> MakeAnswerer() {
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    return *std::move(answerer);
  }
};

TEST_F(SearchTest, FindsWhatAQuestionReadsAgain) {
  LoadModel();
  Fill();
  const auto answerer = MakeAnswerer();
  for (const RereadBy by : {RereadBy::kBm25, RereadBy::kAttention, RereadBy::kBoth}) {
    AskOptions ask;
    ask.max_tokens = 1;
    ask.reread = 2;
    ask.reread_by = by;
    const auto answer = answerer->Ask("What lives by the river?", ask, nullptr, Progress());
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_THAT(answer->reread, SizeIs(2));
    const auto found =
        answerer->Search({.query = "What lives by the river?", .by = by, .n_passages = 2});
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_THAT(*found, SizeIs(2));
    for (size_t i = 0; i < found->size(); ++i) {
      EXPECT_EQ((*found)[i].slot_begin, answer->reread[i].slot_begin) << RereadByName(by);
      EXPECT_EQ((*found)[i].text, answer->reread[i].text);
    }
  }
}

TEST_F(SearchTest, LooksNowhereButInItsScope) {
  LoadModel();
  Fill();
  const auto answerer = MakeAnswerer();
  for (const RereadBy by : {RereadBy::kBm25, RereadBy::kAttention, RereadBy::kBoth}) {
    const auto found = answerer->Search({.query = "river wood",
                                         .by = by,
                                         .n_passages = 9,
                                         .scope = {.collections = {"tools"}, .documents = {}}});
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_THAT(*found, SizeIs(1)) << RereadByName(by);
    EXPECT_EQ((*found)[0].collection, "tools");
  }
  EXPECT_EQ(answerer->Search({.query = "x", .scope = {.collections = {"none"}, .documents = {}}})
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

// Windows and passages begin and end at tokens; what is shown of them, where a reader sees one
// character end and another begin.
TEST_F(SearchTest, ExcerptsAreOfWholeCharactersWhereverWindowsEnd) {
  LoadModel();
  OpenMemory();
  const std::string unit = "👨\u200D👩\u200D👧";
  std::string text;
  for (int i = 0; i < 200; ++i) text += unit;
  // Of the second version the windows that did not change lie where they were.
  for (const std::string& before : {std::string(), std::string(500, 'x')}) {
    IngestText("families", before + text);
    const auto found =
        MakeAnswerer()->Search({.query = "Who?", .by = RereadBy::kAttention, .n_passages = 100});
    ASSERT_TRUE(found.ok()) << found.status();
    int n_cut = 0;
    for (const memory::Passage& passage : *found) {
      for (const auto& [edge, shown] : {std::pair(passage.start, passage.excerpt_start),
                                        std::pair(passage.end, passage.excerpt_end)}) {
        if (edge > before.size() && (edge - before.size()) % unit.size() != 0) ++n_cut;
        EXPECT_TRUE(shown <= before.size() || (shown - before.size()) % unit.size() == 0)
            << passage.start << " to " << passage.end << ": " << shown;
      }
    }
    EXPECT_GT(n_cut, 0);
  }
}

TEST_F(SearchTest, ARefusalSaysWhy) {
  LoadModel(/*with_memory_layers=*/false);
  Fill();
  const auto answerer = MakeAnswerer();
  EXPECT_TRUE(answerer->Search({.query = "river"}).ok());
  EXPECT_EQ(answerer->Search({.query = "river", .by = RereadBy::kAttention}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(answerer->Search({.query = ""}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SearchTest, AMemoryWithoutDocumentsHasNoPassages) {
  LoadModel();
  OpenMemory();
  const auto answerer = MakeAnswerer();
  for (const bool is_emptied : {false, true}) {
    if (is_emptied) {
      IngestText("otter", "The otter lives by the river.\n", "animals");
      std::vector<storage::DocumentNumber> all;
      for (const auto& document : memory_->Current()->documents) all.push_back(document.number);
      ASSERT_TRUE(memory_->DeleteDocuments(all).ok());
    }
    for (const RereadBy by : {RereadBy::kBm25, RereadBy::kAttention, RereadBy::kBoth}) {
      const auto found = answerer->Search({.query = "river", .by = by});
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_THAT(*found, IsEmpty());
    }
    // An answer from nothing would be one that the model makes up.
    const auto answer = answerer->Ask("Where is the river?", {}, nullptr, Progress());
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kFailedPrecondition) << answer.status();
  }
}

}  // namespace
}  // namespace fovea::answer
