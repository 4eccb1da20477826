#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "goldens.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Tokenizer> Make(const TokenizerSpec& spec) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TokenizerSpec FileSpec(std::string_view name = "sentencepiece_llama.model") {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kSentencePiece;
  spec.sentencepiece_model = ReadData(name);
  return spec;
}

// What a GGUF file would list.
TokenizerSpec PieceSpec() { return Make(FileSpec())->spec(); }

// A vocabulary of letters without byte pieces.
TokenizerSpec LetterSpec() {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kSentencePiece;
  spec.tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"};
  spec.scores = {0, 0, 0, -3, -4, -5, -1, -2};
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  spec.types[0] = TokenType::kUnknown;
  spec.types[1] = spec.types[2] = TokenType::kControl;
  spec.bos_id = 1;
  spec.eos_id = 2;
  return spec;
}

TEST(SentencePieceTokenizerTest, FileSaysWhatItsTokensAre) {
  const auto tokenizer = Make(FileSpec());
  EXPECT_EQ(tokenizer->vocab_size(), 1400);
  EXPECT_EQ(tokenizer->spec().bos_id, 1);
  EXPECT_EQ(tokenizer->spec().eos_id, 2);
  EXPECT_TRUE(tokenizer->IsEnd(2));
  EXPECT_EQ(tokenizer->TokenId("<s>"), 1);
  EXPECT_EQ(tokenizer->TokenId("no such piece"), -1);
}

TEST(SentencePieceTokenizerTest, DummyPrefixFollowsTheSpec) {
  TokenizerSpec spec = LetterSpec();
  EXPECT_THAT(Make(spec)->Encode("ab").ids, ElementsAre(7));
  EXPECT_EQ(Make(spec)->Decode(std::vector<int32_t>{7, 7}), "ab ab");
  spec.add_space_prefix = false;
  EXPECT_THAT(Make(spec)->Encode("ab").ids, ElementsAre(6));
  EXPECT_EQ(Make(spec)->Decode(std::vector<int32_t>{7, 7}), " ab ab");
}

TEST(SentencePieceTokenizerTest, EndsLeaveTheDummyPrefixOut) {
  const auto tokenizer = Make(LetterSpec());
  EXPECT_THAT(tokenizer->Encode("ab ab").ends, ElementsAre(2, 5));
  const Encoding alone = tokenizer->Encode("ba");  // ▁|b|a
  EXPECT_THAT(alone.ids, ElementsAre(3, 5, 4));
  EXPECT_THAT(alone.ends, ElementsAre(0, 1, 2));
}

TEST(SentencePieceTokenizerTest, BytePiecesOfACharacterHaveItsEnd) {
  TokenizerSpec spec = PieceSpec();
  spec.add_space_prefix = false;
  const auto tokenizer = Make(spec);
  ASSERT_EQ(tokenizer->TokenId("\U00020BB7"), -1);
  EXPECT_THAT(tokenizer->Encode("\U00020BB7\nb\U00020BB7").ends,
              ElementsAre(4, 4, 4, 4, 5, 6, 10, 10, 10, 10));
}

TEST(SentencePieceTokenizerTest, UnknownCharactersBecomeTheUnknownToken) {
  const auto tokenizer = Make(LetterSpec());
  const Encoding encoding = tokenizer->Encode("aé\xFF");
  EXPECT_THAT(encoding.ids, ElementsAre(3, 4, 0, 0));
  EXPECT_THAT(encoding.ends, ElementsAre(0, 1, 3, 4));
  EXPECT_EQ(tokenizer->Decode(encoding.ids), "a \u2047  \u2047 ");
}

TEST(SentencePieceTokenizerTest, WithoutAnUnknownTokenTheyAreLeftOut) {
  TokenizerSpec spec = LetterSpec();
  spec.types[0] = TokenType::kControl;
  const Encoding encoding = Make(spec)->Encode("éaé\xFF");
  EXPECT_THAT(encoding.ids, ElementsAre(3, 4));
  EXPECT_THAT(encoding.ends, ElementsAre(0, 6));
}

TEST(SentencePieceTokenizerTest, ControlPiecesInPlainTextStayText) {
  for (const TokenizerSpec& spec : {FileSpec(), PieceSpec()}) {
    const auto tokenizer = Make(spec);
    const std::string text = "a</s><s>b";
    const Encoding plain = tokenizer->Encode(text);
    EXPECT_THAT(plain.ids, testing::Each(testing::Gt(2)));
    EXPECT_EQ(tokenizer->Decode(plain.ids), text);
    const Encoding parsed = tokenizer->Encode(text, /*parse_special=*/true);
    EXPECT_THAT(parsed.ids, testing::IsSupersetOf({1, 2}));
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, parsed));
    // Each text between special tokens begins with a dummy prefix of its own.
    EXPECT_EQ(tokenizer->Decode(parsed.ids, /*show_special=*/true), "a</s><s> b");
  }
}

TEST(SentencePieceTokenizerTest, MarkersThatAreTypedUserDefinedStayText) {
  TokenizerSpec spec = PieceSpec();
  const auto id = static_cast<int32_t>(spec.tokens.size());
  spec.tokens.push_back("<|im_start|>");
  spec.types.push_back(TokenType::kUserDefined);
  spec.scores.push_back(0.0f);
  const auto tokenizer = Make(spec);
  EXPECT_THAT(tokenizer->Encode("a<|im_start|>b").ids, testing::Not(testing::Contains(id)));
  EXPECT_THAT(tokenizer->Encode("a<|im_start|>b", true).ids, testing::Contains(id));
}

TEST(SentencePieceTokenizerTest, TokensBeyondTheModelsPiecesAreFound) {
  // tokenizer.model has 1,400 pieces, tokenizer.json adds two.
  TokenizerSpec spec = FileSpec();
  const TokenizerSpec pieces = PieceSpec();
  spec.tokens = pieces.tokens;
  spec.types = pieces.types;
  spec.tokens.insert(spec.tokens.end(), {"<|im_end|>", "<note>"});
  spec.types.insert(spec.types.end(), {TokenType::kControl, TokenType::kUserDefined});
  const auto tokenizer = Make(spec);
  EXPECT_EQ(tokenizer->vocab_size(), 1402);
  const std::string text = "the<note>the<|im_end|>";
  const Encoding plain = tokenizer->Encode(text);
  EXPECT_THAT(plain.ids, testing::Contains(1401));
  EXPECT_THAT(plain.ids, testing::Not(testing::Contains(1400)));
  EXPECT_EQ(tokenizer->Encode(text, true).ids.back(), 1400);
  EXPECT_EQ(tokenizer->Decode(plain.ids), "the<note> the<|im_end|>");
}

TEST(SentencePieceTokenizerTest, VocabulariesThatTheLibraryWouldRefuseWork) {
  TokenizerSpec spec = LetterSpec();
  const auto add = [&](std::string token, TokenType type) {
    spec.tokens.push_back(std::move(token));
    spec.types.push_back(type);
    spec.scores.push_back(-9.0f);
  };
  add("ab", TokenType::kNormal);       // twice
  add("", TokenType::kNormal);         // empty
  add("<unk2>", TokenType::kUnknown);  // a second unknown
  add("<0x41>", TokenType::kByte);     // not all 256 bytes
  const auto tokenizer = Make(spec);
  EXPECT_THAT(tokenizer->Encode("ab ab").ids, ElementsAre(7, 7));
  EXPECT_EQ(tokenizer->TokenId("ab"), 6);
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{11, 9}), "A");
}

TEST(SentencePieceTokenizerTest, LongTextsAreCutWithoutATrace) {
  const auto tokenizer = Make(FileSpec());
  std::string text;
  while (text.size() < (300 << 10)) text += "The lighthouse and the harbour, they said. ";
  const Encoding encoding = tokenizer->Encode(text);
  ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
  EXPECT_EQ(tokenizer->Decode(encoding.ids), text);
  // The sentences are alike, and so are their tokens.
  const size_t period =
      tokenizer->Encode("x. The lighthouse and the harbour, they said.").ids.size() -
      tokenizer->Encode("x.").ids.size();
  for (size_t i = period; i + 2 * period < encoding.ids.size(); ++i) {
    ASSERT_EQ(encoding.ids[i], encoding.ids[i + period]) << "token " << i;
  }
}

TEST(SentencePieceTokenizerTest, RunsOfSpacesAndUnsafeTextAreDone) {
  const auto tokenizer = Make(FileSpec());
  for (const std::string& text : {std::string(200'000, ' '), std::string(200'000, 'a'),
                                  std::string(70'000, '\xFF'), std::string(100'000, '\n')}) {
    const Encoding encoding = tokenizer->Encode(text);
    ASSERT_NO_FATAL_FAILURE(ExpectEndsFit(text, encoding));
    EXPECT_EQ(tokenizer->Decode(encoding.ids), text);
  }
}

TEST(SentencePieceTokenizerTest, DamagedModelIsInvalid) {
  TokenizerSpec spec = FileSpec();
  spec.sentencepiece_model.resize(1000);
  EXPECT_EQ(Tokenizer::Create(spec).status().code(), absl::StatusCode::kInvalidArgument);
  spec.sentencepiece_model = "not a model";
  EXPECT_THAT(Tokenizer::Create(spec).status().ToString(), HasSubstr("SentencePiece"));
}

TEST(SentencePieceTokenizerTest, TypesMustBeAsLongAsTokens) {
  TokenizerSpec spec = PieceSpec();
  spec.types.pop_back();
  EXPECT_EQ(Tokenizer::Create(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace fovea::model
