// Texts for the tiny model, whose tokens are bytes: enough words for facts and a few questions.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "tests/train/tiny_trainable.h"
#include "train/training_texts.h"

namespace fovea::train {

class TinyTextsTest : public TinyTrainableTest {
 protected:
  void SetUp() override {
    TinyTrainableTest::SetUp();
    auto tokenizer = model::Tokenizer::Create(checkpoint_->tokenizer_spec());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    writer_ = std::make_unique<ExchangeWriter>(tokenizer_.get(), model::ChatFormat::kNone, nullptr);
    std::string book;
    for (int i = 0; i < 300; ++i) {
      book +=
          "Then old Marta went into the cellar, and Piet of Grenna saw the lamp. He took a coat. ";
    }
    Write("books.jsonl", nlohmann::json{{"text", book}, {"title", "Cellars"}}.dump() + "\n\n");
    std::string questions;
    for (const char* thing : {"lamp", "coat", "door"}) {
      const std::string context = std::string("The ") + thing + " is in the attic.";
      questions += nlohmann::json{{"context", context},
                                  {"question", std::string("Where is the ") + thing + "?"},
                                  {"answers", {"the attic", "attic"}}}
                       .dump() +
                   "\n";
    }
    questions += nlohmann::json{
        {"context", "The lamp is in the attic."},
        {"question", "What is in the attic?"},
        {"answer",
         "the lamp"}}.dump();
    Write("questions.jsonl", questions);
  }
  std::filesystem::path Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  absl::StatusOr<TrainingTexts> Read(const std::vector<std::filesystem::path>& files) {
    return ReadTrainingTexts(files, *writer_, 1'000'000, Progress());
  }
  TrainingTexts Texts() {
    auto texts = Read({folder_ / "books.jsonl", folder_ / "questions.jsonl"});
    EXPECT_TRUE(texts.ok()) << texts.status();
    return texts.ok() ? *std::move(texts) : TrainingTexts();
  }

  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<ExchangeWriter> writer_;
};

}  // namespace fovea::train
