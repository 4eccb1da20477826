#include "model/tokenizer/bpe_merges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <utility>

#include "goldens.h"
#include "model/tokenizer/byte_alphabet.h"

namespace fovea::model {
namespace {

using testing::HasSubstr;

// Tokens a, b, c, … are the bytes; `merges` make the rest.
TokenizerSpec LetterSpec(std::vector<std::string> merges) {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  spec.pre_tokenizer = "gpt2";
  for (char c = 'a'; c <= 'e'; ++c) spec.tokens.push_back(std::string(1, c));
  for (const std::string& merge : merges) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    spec.tokens.push_back(token);
  }
  spec.merges = std::move(merges);
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  return spec;
}

struct Merger {
  std::unique_ptr<Vocabulary> vocabulary;
  std::unique_ptr<BpeMerges> merges;

  explicit Merger(TokenizerSpec spec) {
    auto made = Vocabulary::Create(std::move(spec));
    EXPECT_TRUE(made.ok()) << made.status();
    vocabulary = *std::move(made);
    auto result = BpeMerges::Create(*vocabulary);
    EXPECT_TRUE(result.ok()) << result.status();
    merges = *std::move(result);
  }
  std::string Apply(std::string_view word) const {
    std::vector<BpeMerges::Symbol> symbols;
    merges->Apply(word, &symbols);
    std::string joined;
    for (const BpeMerges::Symbol& symbol : symbols) {
      if (!joined.empty()) joined += '|';
      joined += vocabulary->spec().tokens[symbol.id];
    }
    return joined;
  }
};

absl::Status CreateError(TokenizerSpec spec) {
  auto vocabulary = Vocabulary::Create(std::move(spec));
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  return BpeMerges::Create(**vocabulary).status();
}

using Ranks = std::map<std::pair<std::string, std::string>, size_t>;

Ranks RanksOf(const TokenizerSpec& spec) {
  Ranks ranks;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string& merge = spec.merges[rank];
    const size_t space = merge.find(' ');
    ranks[{merge.substr(0, space), merge.substr(space + 1)}] = rank;
  }
  return ranks;
}

// The definition, word for word: the lowest rank first, the leftmost among equals.
std::vector<int32_t> NaiveIds(const Vocabulary& vocabulary, const Ranks& ranks,
                              std::string_view word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.push_back(ToByteAlphabet({&c, 1}));
  while (true) {
    size_t best = parts.size();
    size_t best_rank = ranks.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = ranks.find({parts[i], parts[i + 1]});
      if (it != ranks.end() && it->second < best_rank) {
        best = i;
        best_rank = it->second;
      }
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& part : parts) ids.push_back(vocabulary.Find(part));
  return ids;
}

TEST(BpeMergesTest, LowestRankGoesFirst) {
  const Merger merger(LetterSpec({"b c", "a b"}));
  EXPECT_EQ(merger.Apply("abc"), "a|bc");
}

TEST(BpeMergesTest, LeftmostGoesFirstAmongEquals) {
  const Merger merger(LetterSpec({"a a"}));
  EXPECT_EQ(merger.Apply("aaa"), "aa|a");
  EXPECT_EQ(merger.Apply("aaaaa"), "aa|aa|a");
}

TEST(BpeMergesTest, MergedTokensMergeOn) {
  const Merger merger(LetterSpec({"a b", "ab c", "c d", "abc d"}));
  EXPECT_EQ(merger.Apply("abcd"), "abcd");
  EXPECT_EQ(merger.Apply("bcd"), "b|cd");
}

TEST(BpeMergesTest, EndsAreByteOffsets) {
  const Merger merger(LetterSpec({"a b"}));
  std::vector<BpeMerges::Symbol> symbols = {{0, 7}};
  merger.merges->Apply("abcab", &symbols);
  ASSERT_EQ(symbols.size(), 4u);
  EXPECT_EQ(symbols[0].end, 7u);  // appended to what was there
  EXPECT_EQ(symbols[1].end, 2u);
  EXPECT_EQ(symbols[2].end, 3u);
  EXPECT_EQ(symbols[3].end, 5u);
}

TEST(BpeMergesTest, AgreesWithTheDefinition) {
  const Merger merger(ReadVocabulary("gpt2"));
  const Ranks ranks = RanksOf(merger.vocabulary->spec());
  std::mt19937_64 rng(7);
  for (int i = 0; i < 3000; ++i) {
    // Lengths on both sides of where the algorithm changes.
    std::string word;
    const size_t size = 1 + rng() % 60;
    while (word.size() < size) word.push_back("theaincor sd\xC3\xA9"[rng() % 14]);
    std::vector<BpeMerges::Symbol> symbols;
    merger.merges->Apply(word, &symbols);
    std::vector<int32_t> ids;
    for (const BpeMerges::Symbol& symbol : symbols) ids.push_back(symbol.id);
    ASSERT_EQ(ids, NaiveIds(*merger.vocabulary, ranks, word)) << word;
  }
}

TEST(BpeMergesTest, WordOfMegabytesIsMerged) {
  // A quadratic algorithm would not end within a test's time.
  const Merger merger(LetterSpec({"a a", "aa aa", "aaaa aaaa"}));
  const size_t size = 2 << 20;
  std::vector<BpeMerges::Symbol> symbols;
  merger.merges->Apply(std::string(size, 'a'), &symbols);
  EXPECT_EQ(symbols.size(), size / 8);
  EXPECT_EQ(symbols.back().end, size);
}

TEST(BpeMergesTest, AbsentBytesAreLeftOutAndTheirNeighboursMerge) {
  const Merger merger(LetterSpec({"a b"}));
  std::vector<BpeMerges::Symbol> symbols;
  merger.merges->Apply("aXb", &symbols);
  ASSERT_EQ(symbols.size(), 1u);
  EXPECT_EQ(symbols[0].end, 3u);
}

TEST(BpeMergesTest, AbsentBytesBecomeTheUnknownToken) {
  TokenizerSpec spec = LetterSpec({"a b"});
  spec.tokens.push_back("<unk>");
  spec.types.push_back(TokenType::kUnknown);
  EXPECT_EQ(Merger(spec).Apply("aXb"), "a|<unk>|b");
}

TEST(BpeMergesTest, NoMergeMakesASpecialToken) {
  TokenizerSpec spec = LetterSpec({"a b", "c d"});
  spec.types[5] = TokenType::kControl;  // "ab"
  EXPECT_EQ(Merger(spec).Apply("abcd"), "a|b|cd");
}

TEST(BpeMergesTest, BadMergesAreNamed) {
  TokenizerSpec spec = LetterSpec({"a b"});
  spec.merges = {"a b", "ab"};
  EXPECT_THAT(CreateError(spec).ToString(), HasSubstr("merge 1 is \"ab\""));
  spec.merges = {"a b c"};
  EXPECT_EQ(CreateError(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.merges = {"a z"};
  EXPECT_THAT(CreateError(spec).ToString(), HasSubstr("\"z\" is not in the vocabulary"));
  spec.merges = {"b c"};
  EXPECT_THAT(CreateError(spec).ToString(), HasSubstr("\"bc\" is not in the vocabulary"));
}

}  // namespace
}  // namespace fovea::model
