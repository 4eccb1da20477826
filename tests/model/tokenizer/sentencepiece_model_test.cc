#include "model/tokenizer/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "goldens.h"
#include "model/tokenizer/safe_cuts.h"
#include "model/tokenizer/sentencepiece_library.h"

namespace fovea::model {
namespace {

using testing::HasSubstr;

SentencePieceModel ParseFile(std::string_view name) {
  absl::StatusOr<SentencePieceModel> model = SentencePieceModel::Parse(ReadData(name));
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

TEST(SentencePieceModelTest, ReadsPiecesAndSettings) {
  const SentencePieceModel model = ParseFile("sentencepiece_llama.model");
  EXPECT_EQ(model.pieces.size(), 1400u);
  EXPECT_EQ(model.pieces[0].text, "<unk>");
  EXPECT_EQ(model.pieces[0].type, TokenType::kUnknown);
  EXPECT_EQ(model.pieces[1].type, TokenType::kControl);
  EXPECT_EQ(model.pieces[3].text, "<tool_call>");
  EXPECT_EQ(model.pieces[3].type, TokenType::kUserDefined);
  EXPECT_EQ(model.pieces[5].text, "<0x00>");
  EXPECT_EQ(model.pieces[5].type, TokenType::kByte);
  EXPECT_LT(model.pieces[300].score, 0.0f);
  EXPECT_TRUE(model.add_dummy_prefix);
  EXPECT_TRUE(model.byte_fallback);
  EXPECT_FALSE(model.remove_extra_whitespaces);
  EXPECT_FALSE(model.has_character_map);

  const SentencePieceModel normalizing = ParseFile("sentencepiece_normalizing.model");
  EXPECT_FALSE(normalizing.byte_fallback);
  EXPECT_TRUE(normalizing.remove_extra_whitespaces);
  EXPECT_TRUE(normalizing.has_character_map);
}

TEST(SentencePieceModelTest, WhatIsWrittenReadsTheSame) {
  SentencePieceModel model = ParseFile("sentencepiece_normalizing.model");
  model.add_dummy_prefix = false;
  absl::StatusOr<SentencePieceModel> again = SentencePieceModel::Parse(model.Serialize());
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_EQ(again->pieces.size(), model.pieces.size());
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    EXPECT_EQ(again->pieces[i].text, model.pieces[i].text);
    EXPECT_EQ(again->pieces[i].score, model.pieces[i].score);
    EXPECT_EQ(again->pieces[i].type, model.pieces[i].type);
  }
  EXPECT_FALSE(again->add_dummy_prefix);
  EXPECT_TRUE(again->remove_extra_whitespaces);
  EXPECT_TRUE(again->has_character_map);
}

TEST(SentencePieceModelTest, TruncatedAndDamagedFilesAreRefusedOrRead) {
  const std::string file = ReadData("sentencepiece_llama.model");
  // What comes after the normalizer, in the last bytes, may be missing.
  for (size_t size = 0; size + 32 < file.size(); size += 11) {
    const absl::Status status =
        SentencePieceModel::Parse(std::string_view(file).substr(0, size)).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << " bytes";
  }
  for (size_t position = 0; position < file.size(); position += 89) {
    TokenizerSpec spec;
    spec.kind = TokenizerSpec::Kind::kSentencePiece;
    spec.sentencepiece_model = file;
    spec.sentencepiece_model[position] ^= '\xA5';
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(spec);
    if (tokenizer.ok()) {
      const std::string text = "a text, 12 é\n";
      ExpectEndsFit(text, (*tokenizer)->Encode(text));
    } else {
      EXPECT_NE(tokenizer.status().code(), absl::StatusCode::kInternal) << tokenizer.status();
    }
  }
  EXPECT_THAT(SentencePieceModel::Parse("").status().ToString(), HasSubstr("no pieces"));
  EXPECT_THAT(SentencePieceModel::Parse("{\"json\": 1}").status().ToString(),
              HasSubstr("not a SentencePiece model"));
}

TEST(SentencePieceModelTest, SelfTestsOfAnotherPrefixDoNotFailTheModel) {
  SentencePieceModel model = ParseFile("sentencepiece_llama.model");
  // self_test_data { samples { input: "a" expected: "not what comes out" } }
  const std::string sample = std::string("\x0A\x01") + "a" + "\x12\x12" + "not what comes out";
  std::string data = "\x0A";
  data += static_cast<char>(sample.size());
  data += sample;
  std::string file = ReadData("sentencepiece_llama.model");
  file += '\x22';
  file += static_cast<char>(data.size());
  file += data;
  std::string error;
  EXPECT_EQ(SentencePieceLibrary::Load(file, &error), nullptr) << "the library runs self-tests";
  absl::StatusOr<SentencePieceModel> parsed = SentencePieceModel::Parse(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_NE(SentencePieceLibrary::Load(parsed->Serialize(), &error), nullptr) << error;
}

TEST(SentencePieceModelTest, SpecNeedsScoresAndTypes) {
  TokenizerSpec spec;
  spec.tokens = {"<unk>", "a"};
  spec.types = {TokenType::kUnknown, TokenType::kNormal};
  EXPECT_THAT(SentencePieceModel::FromSpec(spec).status().ToString(), HasSubstr("0 scores"));
  spec.scores = {0.0f, -1.0f};
  EXPECT_TRUE(SentencePieceModel::FromSpec(spec).ok());
}

TEST(SafeCutsTest, CutsOnlyBetweenStrangers) {
  SafeCuts cuts;
  cuts.AddPiece("\u2581the");
  cuts.AddPiece("中文");
  const std::string text = "on the 中文x";
  EXPECT_EQ(cuts.Next(text, 1), 1u);    // o|n
  EXPECT_EQ(cuts.Next(text, 2), 2u);    // n|␠
  EXPECT_EQ(cuts.Next(text, 3), 6u);    // ␠the|␠: within the piece there is none
  EXPECT_EQ(cuts.Next(text, 8), 7u);    // within a character: before it
  EXPECT_EQ(cuts.Next(text, 10), 13u);  // 中文|x
  EXPECT_EQ(cuts.Next(text, 14), 14u);
  EXPECT_EQ(cuts.Next(text, 99), 14u);
}

}  // namespace
}  // namespace fovea::model
