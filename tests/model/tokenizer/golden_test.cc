// Every id of 10,000 strings against the reference libraries' (see data/).
#include <gtest/gtest.h>

#include <string>

#include "goldens.h"
#include "model/tokenizer/utf8.h"

namespace fovea::model {
namespace {

std::string JoinedStrings() {
  std::string joined;
  for (const std::string& text : GoldenStrings()) joined += text;
  return joined;
}

class ByteLevelGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::Create(ReadVocabulary(GetParam()));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    golden_ = ReadGolden(GetParam());
    ASSERT_EQ(GoldenStrings().size(), 10'000u);
    ASSERT_EQ(golden_.hashes.size(), GoldenStrings().size());
    ASSERT_EQ(golden_.first_ids.size(), 200u);
  }
  // The vocabulary of "smollm" lacks bytes, as SmolLM2's does.
  bool has_all_bytes() const { return std::string_view(GetParam()) != "smollm"; }

  std::unique_ptr<Tokenizer> tokenizer_;
  Golden golden_;
};

TEST_P(ByteLevelGoldenTest, FirstStringsHaveTheReferencesIds) {
  for (size_t i = 0; i < golden_.first_ids.size(); ++i) {
    EXPECT_EQ(tokenizer_->Encode(GoldenStrings()[i]).ids, golden_.first_ids[i])
        << "string " << i << ": " << GoldenStrings()[i];
  }
}

TEST_P(ByteLevelGoldenTest, AllStringsHaveTheReferencesIds) {
  size_t n_different = 0;
  for (size_t i = 0; i < GoldenStrings().size(); ++i) {
    const std::string& text = GoldenStrings()[i];
    const uint32_t hash = HashOfIds(tokenizer_->Encode(text).ids,
                                    tokenizer_->Encode(text, /*parse_special=*/true).ids);
    if (hash == golden_.hashes[i]) continue;
    if (++n_different <= 5) ADD_FAILURE() << "string " << i << ": " << testing::PrintToString(text);
  }
  EXPECT_EQ(n_different, 0u);
}

TEST_P(ByteLevelGoldenTest, AllStringsInOneHaveTheReferencesIds) {
  const std::string joined = JoinedStrings();
  EXPECT_EQ(HashOfIds(tokenizer_->Encode(joined).ids, tokenizer_->Encode(joined, true).ids),
            golden_.joined_hash);
}

TEST_P(ByteLevelGoldenTest, DecodingGivesTheTextBack) {
  if (!has_all_bytes()) GTEST_SKIP() << "this vocabulary lacks bytes: their text is lost";
  for (const std::string& text : GoldenStrings()) {
    ASSERT_EQ(tokenizer_->Decode(tokenizer_->Encode(text).ids), text);
    ASSERT_EQ(tokenizer_->Decode(tokenizer_->Encode(text, true).ids, /*show_special=*/true), text);
  }
}

TEST_P(ByteLevelGoldenTest, EndsFollowTheTokensBytes) {
  for (const std::string& text : GoldenStrings()) {
    const Encoding encoding = tokenizer_->Encode(text);
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
    if (has_all_bytes()) {
      ASSERT_NO_FATAL_FAILURE(ExpectEndsFollowBytes(*tokenizer_, text, encoding));
    }
  }
}

TEST_P(ByteLevelGoldenTest, RandomBytesComeBack) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const std::string text = RandomBytes(seed);
    const Encoding encoding = tokenizer_->Encode(text);
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
    if (has_all_bytes()) {
      ASSERT_EQ(tokenizer_->Decode(encoding.ids), text) << "seed " << seed;
      ASSERT_NO_FATAL_FAILURE(ExpectEndsFollowBytes(*tokenizer_, text, encoding));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PreTokenizers, ByteLevelGoldenTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2"),
                         [](const auto& info) { return std::string(info.param); });

// A SentencePiece model as its file has it, and as a GGUF file would list it.
struct SentencePieceCase {
  const char* name;
  const char* golden;
  bool from_pieces;
};

class SentencePieceGoldenTest : public testing::TestWithParam<SentencePieceCase> {
 protected:
  void SetUp() override {
    const std::string name = GetParam().golden;
    TokenizerSpec spec;
    spec.kind = TokenizerSpec::Kind::kSentencePiece;
    spec.sentencepiece_model = ReadData(name + ".model");
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (GetParam().from_pieces) {
      spec = (*tokenizer)->spec();
      ASSERT_TRUE(spec.sentencepiece_model.empty());
      tokenizer = Tokenizer::Create(spec);
      ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    }
    tokenizer_ = *std::move(tokenizer);
    golden_ = ReadGolden(name);
    ASSERT_EQ(golden_.hashes.size(), GoldenStrings().size());
  }
  bool is_lossless() const { return std::string_view(GetParam().golden) == "sentencepiece_llama"; }

  std::unique_ptr<Tokenizer> tokenizer_;
  Golden golden_;
};

TEST_P(SentencePieceGoldenTest, FirstStringsHaveTheReferencesIds) {
  for (size_t i = 0; i < golden_.first_ids.size(); ++i) {
    EXPECT_EQ(tokenizer_->Encode(GoldenStrings()[i]).ids, golden_.first_ids[i])
        << "string " << i << ": " << GoldenStrings()[i];
  }
}

TEST_P(SentencePieceGoldenTest, AllStringsHaveTheReferencesIds) {
  size_t n_different = 0;
  for (size_t i = 0; i < GoldenStrings().size(); ++i) {
    const std::vector<int32_t> ids = tokenizer_->Encode(GoldenStrings()[i]).ids;
    if (HashOfIds(ids, ids) == golden_.hashes[i]) continue;
    if (++n_different <= 5) {
      ADD_FAILURE() << "string " << i << ": " << testing::PrintToString(GoldenStrings()[i]);
    }
  }
  EXPECT_EQ(n_different, 0u);
}

TEST_P(SentencePieceGoldenTest, AllStringsInOneHaveTheReferencesIds) {
  // Longer than the parts that the library gets at once.
  const std::vector<int32_t> ids = tokenizer_->Encode(JoinedStrings()).ids;
  EXPECT_EQ(HashOfIds(ids, ids), golden_.joined_hash);
}

TEST_P(SentencePieceGoldenTest, DecodingGivesTheTextBack) {
  if (!is_lossless()) GTEST_SKIP() << "this model rewrites text and has unknown characters";
  for (const std::string& text : GoldenStrings()) {
    ASSERT_EQ(tokenizer_->Decode(tokenizer_->Encode(text).ids), text);
  }
}

TEST_P(SentencePieceGoldenTest, EndsFollowTheTokensText) {
  for (const std::string& text : GoldenStrings()) {
    const Encoding encoding = tokenizer_->Encode(text);
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
    if (!is_lossless() || text.size() > 200) continue;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const std::string decoded =
          tokenizer_->Decode(std::span<const int32_t>(encoding.ids).first(i + 1));
      const std::string_view until = std::string_view(text).substr(0, encoding.ends[i]);
      ASSERT_TRUE(until.starts_with(decoded)) << text;
      // What is beyond is the rest of a character.
      ASSERT_LT(until.size(), decoded.size() + 4) << text;
      ASSERT_EQ(ValidUtf8Prefix(decoded) == decoded.size(), until.size() == decoded.size()) << text;
    }
  }
}

TEST_P(SentencePieceGoldenTest, RandomBytesComeBack) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = RandomBytes(seed);
    const Encoding encoding = tokenizer_->Encode(text);
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
    if (is_lossless()) {
      ASSERT_EQ(tokenizer_->Decode(encoding.ids), text) << "seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, SentencePieceGoldenTest,
    testing::Values(SentencePieceCase{"LlamaFile", "sentencepiece_llama", false},
                    SentencePieceCase{"LlamaPieces", "sentencepiece_llama", true},
                    SentencePieceCase{"NormalizingFile", "sentencepiece_normalizing", false}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace fovea::model
