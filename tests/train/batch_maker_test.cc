#include "train/batch_maker.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/train/tiny_texts.h"

namespace fovea::train {
namespace {

using ::testing::HasSubstr;

class BatchMakerTest : public TinyTextsTest {
 protected:
  static BatchOptions Small() {
    BatchOptions options;
    options.n_entries = 16;
    options.context_tokens = 512;
    options.query_tokens = 256;
    options.seed = 9;
    return options;
  }
  Passage Asked(const std::string& text, const std::string& question, const std::string& answer) {
    Passage passage{.text = text, .ids = writer_->Encode(text)};
    auto exchange = writer_->Write(question, answer);
    EXPECT_TRUE(exchange.ok()) << exchange.status();
    if (exchange.ok()) passage.questions.push_back(*std::move(exchange));
    return passage;
  }
  std::string TextOf(const torch::Tensor& row, int64_t begin, int64_t end) const {
    std::vector<int32_t> ids;
    for (int64_t i = begin; i < end; ++i) ids.push_back(row[i].item<int32_t>());
    return tokenizer_->Decode(ids);
  }
};

// Whatever is asked for stands where the ask says, and its answer is what is counted next.
TEST_F(BatchMakerTest, AsksPointAtWhatAnswersThem) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.reread_share = 0.0;
  options.lookalike_share = 1.0;
  options.book_asks = 0;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  int n_facts = 0, n_questions = 0;
  for (uint64_t step = 0; step < 20; ++step) {
    const auto batch = (*maker)->Make(step, 4);
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(batch->seen.size(), 16u);
    EXPECT_EQ(batch->seen[3].front(), 3);
    for (const Ask& ask : batch->asks) {
      const torch::Tensor query = batch->queries[ask.entry];
      const torch::Tensor target = batch->targets[ask.entry];
      const std::string passage =
          TextOf(batch->contexts[ask.entry], ask.memory_begin, ask.memory_end);
      // From the ask on, the targets are the answer.
      std::vector<int32_t> answer;
      for (int64_t t = ask.position; t < options.query_tokens; ++t) {
        const auto id = target[t].item<int32_t>();
        if (id < 0) break;
        EXPECT_EQ(id, query[t + 1].item<int32_t>());
        answer.push_back(id);
        if (tokenizer_->IsEnd(id)) break;
      }
      ASSERT_FALSE(answer.empty());
      EXPECT_TRUE(tokenizer_->IsEnd(answer.back()));
      std::string said = tokenizer_->Decode(answer);
      if (said.ends_with(".")) said.pop_back();
      if (!said.empty()) said[0] = static_cast<char>(std::tolower(said[0]));
      const size_t space = said.find(' ');
      std::string lower = passage;
      for (char& c : lower) c = static_cast<char>(std::tolower(c));
      for (char& c : said) c = static_cast<char>(std::tolower(c));
      EXPECT_TRUE(lower.find(said) != std::string::npos ||
                  lower.find(said.substr(space + 1)) != std::string::npos)
          << passage << " | " << said;
      const bool is_question =
          passage.find("in the attic") != std::string::npos && passage.starts_with("The ");
      ++(is_question ? n_questions : n_facts);
    }
  }
  EXPECT_GT(n_facts, 50);
  EXPECT_GT(n_questions, 50);
}

// With passages in the prompts, what answers is in them, in the memory, or in both.
TEST_F(BatchMakerTest, ReadsPassagesAgainWithAndWithoutThemInTheMemory) {
  TrainingTexts texts = Texts();
  // One that cannot be taken for the others.
  const Passage passage = Asked("Grenna has one mill.", "How many mills has Grenna?", "one");
  texts.file_begins.push_back(texts.passages.size());
  texts.passages.push_back(passage);
  BatchOptions options = Small();
  options.book_share = 0.0;
  options.question_share = 1.0;
  options.reread_share = 1.0;
  options.n_entries = 64;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok());
  int n[2][2] = {};
  bool has_several = false;
  for (uint64_t step = 0; step < 16; ++step) {
    const auto batch = (*maker)->Make(step, 2);
    ASSERT_TRUE(batch.ok());
    for (int64_t i = 0; i < options.n_entries; ++i) {
      const std::string query = TextOf(batch->queries[i], 0, options.query_tokens);
      EXPECT_THAT(query, HasSubstr(".\n\n"));  // a passage
      has_several |= query.find("attic.\n\nThe") != std::string::npos;
      if (query.find("How many mills") == std::string::npos) continue;
      const std::string context = TextOf(batch->contexts[i], 0, options.context_tokens);
      ++n[query.find(passage.text) != std::string::npos]
         [context.find(passage.text) != std::string::npos];
    }
  }
  EXPECT_EQ(n[0][0], 0);
  EXPECT_GT(n[0][1], 2);
  EXPECT_GT(n[1][0], 2);
  EXPECT_GT(n[1][1], 2);
  EXPECT_TRUE(has_several);
}

// The teacher reads the passage and is taken at the tokens that say the same answer.
TEST_F(BatchMakerTest, TheTeacherHasThePassageAndTheSameAnswer) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.teacher_tokens = 600;
  options.book_share = 0.0;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  const auto batch = (*maker)->Make(2, 4);
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_GT(batch->taught.size(), 20u);
  for (const Taught& taught : batch->taught) {
    const auto next = batch->targets[taught.entry][taught.position].item<int64_t>();
    ASSERT_GE(next, 0);
    EXPECT_EQ(next, batch->teacher[taught.entry][taught.teacher_position + 1].item<int64_t>());
  }
  const std::string read = TextOf(batch->teacher[batch->taught[0].entry], 0, 600);
  EXPECT_THAT(read, HasSubstr("\n\n"));
  const auto local = (*maker)->Make(2, 0);
  EXPECT_FALSE(local->teacher.defined());
  EXPECT_TRUE(local->taught.empty());
}

TEST_F(BatchMakerTest, BooksAskForTheirOwnContext) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.book_share = 1.0;
  options.question_share = 0.0;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  const auto batch = (*maker)->Make(0, 4);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->asks.size(), 16u * 4u);
  for (const Ask& ask : batch->asks) {
    EXPECT_GE(ask.position, 16);
    EXPECT_LT(ask.position, options.query_tokens);
    EXPECT_EQ(ask.memory_begin, 0);
    EXPECT_EQ(ask.memory_end, options.context_tokens);
  }
  for (const Ask& own : batch->own) EXPECT_EQ(own.position, options.query_tokens - 1);
}

// What stands beside a passage in its file stands beside it in prompts, whole or in part; asking
// turns question and answer around.
TEST_F(BatchMakerTest, AsksAboutPassagesAmongTheirNeighbours) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.n_entries = 64;
  options.query_tokens = 400;
  options.passage_bytes = 340;
  options.ask_share = 1.0;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  const auto batch = (*maker)->Make(1, 0);
  ASSERT_TRUE(batch.ok()) << batch.status();
  int n = 0;
  for (int64_t i = 0; i < options.n_entries; ++i) {
    const std::string query = TextOf(batch->queries[i], 0, options.query_tokens);
    const size_t task = query.find(kAskForQuestion);
    if (task == std::string::npos) continue;  // a book
    ++n;
    EXPECT_THAT(query,
                HasSubstr("The lamp is in the attic.\n\nThe coat is in the attic.\n\nThe door"));
    std::string asked;
    for (int64_t t = 0; t < options.query_tokens; ++t) {
      const auto id = batch->targets[i][t].item<int32_t>();
      if (id >= 0 && !tokenizer_->IsEnd(id)) asked += tokenizer_->Decode({{id}});
    }
    EXPECT_THAT(asked, testing::MatchesRegex("(W[a-z ]+\\?)+"));
  }
  EXPECT_GT(n, 10);
}

// A passage stands in the memory where it does in its document, and its neighbours are what is read
// in its place.
TEST_F(BatchMakerTest, PassagesLieAmongTheirNeighbours) {
  TrainingTexts texts = Texts();
  texts.passages.clear();
  texts.file_begins = {0};
  std::string symbols;
  for (char c = '!'; c <= '~'; ++c) {
    if (c != '?') symbols += c;
  }
  // No two have a token in common: others would be versions of one text.
  const auto text_of = [&](size_t i) {
    std::string text;
    for (int j = 0; j < 6; ++j) text += symbols.substr(4 * i, 4);
    return text;
  };
  constexpr size_t kPassages = 23, kReach = 4;
  for (size_t i = 0; i < kPassages; ++i) {
    texts.passages.push_back(Asked(text_of(i), "Which follows " + symbols.substr(4 * i, 1) + "?",
                                   text_of(i).substr(1, 3)));
  }
  BatchOptions options = Small();
  options.book_share = 0.0;
  options.question_share = 1.0;
  options.reread_share = 1.0;
  options.n_entries = 64;
  options.context_tokens = 256;  // a passage and its neighbours
  options.neighbour_share = 1.0;
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  int n_contexts = 0, n_beside = 0;
  for (uint64_t step = 0; step < 4; ++step) {
    const auto batch = (*maker)->Make(step, 2);
    ASSERT_TRUE(batch.ok()) << batch.status();
    for (int64_t i = 0; i < options.n_entries; ++i) {
      const std::string context = TextOf(batch->contexts[i], 0, options.context_tokens);
      std::vector<std::pair<size_t, size_t>> found;  // place, passage
      for (size_t p = 0; p < kPassages; ++p) {
        const size_t at = context.find(text_of(p));
        if (at != std::string::npos) found.emplace_back(at, p);
      }
      if (found.empty()) continue;  // what answers is in the prompt alone
      ++n_contexts;
      EXPECT_TRUE(std::is_sorted(found.begin(), found.end())) << context;
      int n_consecutive = 0;
      for (size_t f = 1; f < found.size(); ++f) {
        n_consecutive += found[f].second == found[f - 1].second + 1;
      }
      EXPECT_GE(n_consecutive, static_cast<int>(kReach)) << context;

      const std::string query = TextOf(batch->queries[i], 0, options.query_tokens);
      for (size_t p = 0; p < kPassages; ++p) {
        const size_t asked = query.find("Which follows " + symbols.substr(4 * p, 1) + "?");
        if (asked == std::string::npos) continue;
        const size_t before = query.rfind('?', asked);
        const size_t begin = before == std::string::npos ? 0 : before;
        const std::string prompt = query.substr(begin, asked - begin);
        if (prompt.find(text_of(p)) != std::string::npos) continue;
        for (size_t other = 0; other < kPassages; ++other) {
          if (prompt.find(text_of(other)) == std::string::npos) continue;
          ++n_beside;
          EXPECT_LE(std::max(other, p) - std::min(other, p), kReach) << prompt;
        }
      }
    }
  }
  EXPECT_GT(n_contexts, 100);
  EXPECT_GT(n_beside, 10);
}

TEST_F(BatchMakerTest, ABatchDependsOnSeedAndStepAlone) {
  const TrainingTexts texts = Texts();
  const auto a = BatchMaker::Create(&texts, writer_.get(), Small());
  const auto b = BatchMaker::Create(&texts, writer_.get(), Small());
  (void)(*b)->Make(5, 2);
  const auto first = (*a)->Make(7, 2);
  const auto second = (*b)->Make(7, 2);
  EXPECT_TRUE(torch::equal(first->contexts, second->contexts));
  EXPECT_TRUE(torch::equal(first->targets, second->targets));
  EXPECT_FALSE(torch::equal(first->contexts, (*a)->Make(8, 2)->contexts));
  const auto local = (*a)->Make(7, 0);
  EXPECT_FALSE(local->contexts.defined());
  EXPECT_TRUE(local->asks.empty());
  EXPECT_GT(local->targets.ne(-100).sum().item<int64_t>(), 0);
}

TEST_F(BatchMakerTest, PacksHoldConsecutiveChunksOfABook) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.packings = *ParsePackings("0+0,3+1");
  const auto maker = BatchMaker::Create(&texts, writer_.get(), options);
  ASSERT_TRUE(maker.ok()) << maker.status();
  const auto batch = (*maker)->Make(3, 1);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_FALSE(batch->contexts.defined());
  EXPECT_TRUE(torch::equal(batch->queries.slice(1, 1), batch->targets.slice(1, 0, -1)));
  EXPECT_EQ(batch->own.size(), 6u);
  for (const Ask& own : batch->own) {
    EXPECT_GE(own.entry, 8);
    EXPECT_EQ(batch->seen[static_cast<size_t>(own.entry)][0], own.entry - 1);
    // What follows the chunk before it is its own first token.
    EXPECT_EQ(batch->targets[own.entry - 1][-1].item<int64_t>(),
              batch->queries[own.entry][0].item<int64_t>());
  }
  const auto local = (*maker)->Make(3, 0);
  EXPECT_TRUE(local.ok() && local->seen.empty());
  options.packings = *ParsePackings("2+0");
  EXPECT_TRUE(absl::IsInvalidArgument(BatchMaker::Create(&texts, writer_.get(), options).status()));
}

TEST_F(BatchMakerTest, RefusesWhatGivesNoBatch) {
  const TrainingTexts texts = Texts();
  BatchOptions options = Small();
  options.context_tokens = 8;
  EXPECT_TRUE(absl::IsInvalidArgument(BatchMaker::Create(&texts, writer_.get(), options).status()));
  const TrainingTexts none;
  EXPECT_TRUE(absl::IsInvalidArgument(BatchMaker::Create(&none, writer_.get(), Small()).status()));
  const auto maker = BatchMaker::Create(&texts, writer_.get(), Small());
  EXPECT_TRUE(absl::IsInvalidArgument((*maker)->Make(0, 17).status()));
}

}  // namespace
}  // namespace fovea::train
