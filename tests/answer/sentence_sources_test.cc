// Which passage a sentence is said to be read from, with the attention of a real search.
#include "answer/sentence_sources.h"

#include <numeric>
#include <string>
#include <vector>

#include "answer/prompt_context.h"
#include "answer/shared_model.h"
#include "gtest/gtest.h"
#include "tests/answer/tiny_memory.h"

namespace fovea::answer {
namespace {

class SentenceSourcesTest : public TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    LoadModel();
    OpenMemory();
    IngestText("animals", "The otter lives by the river.\n\nThe badger digs at night.\n");
    auto searcher = memory::MemorySearcher::Create(device_.get(), memory_->Current(), {});
    ASSERT_TRUE(searcher.ok()) << searcher.status();
    searcher_ = *std::move(searcher);
    shared_ = std::make_unique<SharedModel>(model_.get());
  }
  void TearDown() override {
    shared_.reset();
    searcher_.reset();
    TinyMemoryTest::TearDown();
  }
  // Tokens are made, of which the memory layers attend to the one document's passage.
  void Attend() {
    constexpr size_t kTokens = 5;
    ids_.resize(ids_.size() + kTokens);
    std::iota(ids_.begin(), ids_.end(), 65);
    const absl::Status status = context_.Run(ids_, *shared_, searcher_.get(), nullptr, Progress());
    ASSERT_TRUE(status.ok()) << status;
  }
  static memory::Passage Reread(memory::Slot slot, const std::string& text) {
    memory::Passage passage;
    passage.slot_begin = slot;
    passage.text = text;
    passage.reread = true;
    return passage;
  }

  std::unique_ptr<memory::MemorySearcher> searcher_;
  std::unique_ptr<SharedModel> shared_;
  PromptContext context_;
  std::vector<int32_t> ids_;
};

TEST_F(SentenceSourcesTest, OfTheMemoryAlonePassageAndSentenceHaveAWordInCommon) {
  SentenceSources sources({}, searcher_.get(), /*n_sources=*/3);
  sources.Begin();
  const std::pair<const char*, int> cases[] = {
      {"2+2", 0},
      {"Ottokar baked bread.", 0},
      {"The otter eats a fish.", 1},  // one of three
      {"It was by the", 0},           // stop words, which the passage has
      {"", 0},
      {"BADGERS.", 1},
      {"Rivera", 1},  // as the text index finds words, by their beginnings
  };
  for (const auto& [sentence, want] : cases) {
    Attend();
    EXPECT_EQ(sources.SourceOf(sentence), want) << sentence;
    EXPECT_TRUE(sources.status().ok()) << sources.status();
  }
  ASSERT_EQ(sources.named().size(), 1U);
  EXPECT_EQ(sources.named()[0].source, "animals");
}

TEST_F(SentenceSourcesTest, WithoutAttentionWordsAreNoReason) {
  SentenceSources sources({}, searcher_.get(), /*n_sources=*/3);
  Attend();
  sources.Begin();  // what was attended to before it is not the sentence's
  EXPECT_EQ(sources.SourceOf("The otter lives by the river."), 0);
  SentenceSources without({}, nullptr, /*n_sources=*/3);
  without.Begin();
  EXPECT_EQ(without.SourceOf("The otter lives by the river."), 0);
}

TEST_F(SentenceSourcesTest, OfPassagesInThePromptTheOneWithHalfOfTheWords) {
  const std::vector<memory::Passage> reread = {Reread(1000, "A hammer drives nails."),
                                               Reread(2000, "A chisel cuts hard wood.")};
  SentenceSources sources(reread, searcher_.get(), /*n_sources=*/3);
  sources.Begin();
  Attend();
  EXPECT_EQ(sources.SourceOf("The chisel cuts it."), 1);
  EXPECT_EQ(sources.named().back().slot_begin, 2000U);
  Attend();
  EXPECT_EQ(sources.SourceOf("Nails and a hammer"), 2);
  EXPECT_EQ(sources.named().back().slot_begin, 1000U);
  Attend();  // one of four is little, and attention was elsewhere
  EXPECT_EQ(sources.SourceOf("Wood burns bright tonight"), 0);
  Attend();
  EXPECT_EQ(sources.SourceOf("Wood, a river and no hope"), 3);
  EXPECT_EQ(sources.named().back().source, "animals");
}

TEST_F(SentenceSourcesTest, NoMoreGetANumberThanAreWanted) {
  const std::vector<memory::Passage> reread = {Reread(1000, "A hammer drives nails."),
                                               Reread(2000, "A chisel cuts wood.")};
  SentenceSources sources(reread, nullptr, /*n_sources=*/1);
  sources.Begin();
  EXPECT_EQ(sources.SourceOf("The hammer drives."), 1);
  EXPECT_EQ(sources.SourceOf("The chisel cuts."), 0);
  EXPECT_EQ(sources.SourceOf("Nails."), 1);
  EXPECT_EQ(sources.named().size(), 1U);
}

}  // namespace
}  // namespace fovea::answer
