// What training reads: long texts, and questions on contexts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "model/tokenizer/chat_template.h"
#include "model/tokenizer/tokenizer.h"
#include "texts/fact_words.h"
#include "texts/facts.h"
#include "texts/random.h"

namespace fovea::train {

using texts::Fact;
using texts::FactMaker;
using texts::Random;

using Tokens = std::vector<int32_t>;

// A question as the model is asked and as it is to answer.
struct Exchange {
  std::string question;
  std::string reply;
  Tokens prompt;  // a conversation's begin, ending where the answer begins
  Tokens answer;  // with the id that ends it
};

struct Passage {
  std::string text = {};
  Tokens ids = {};
  std::vector<Exchange> questions = {};
};

struct TrainingTexts {
  std::vector<Tokens> books;
  std::vector<Passage> passages;    // each with at least one question
  std::vector<size_t> file_begins;  // of the passages, by file that has any
  texts::FactWords words;           // of the books
};

// What a model is told, after a passage, that is to ask something about it (self_study.h).
inline constexpr std::string_view kAskForQuestion = "Ask a question about this text.";

// Writes conversations of a model: its ids, and what is put around questions.
class ExchangeWriter {
 public:
  // `system_prompt`: null where the format adds none of its own.
  ExchangeWriter(const model::Tokenizer* tokenizer, model::ChatFormat format,
                 const std::string* system_prompt)
      : tokenizer_(*tokenizer), format_(format), system_prompt_(system_prompt) {}

  absl::StatusOr<Exchange> Write(const std::string& question, const std::string& answer) const;
  // The same with passages in the prompt, as re-reading puts them there.
  absl::StatusOr<Exchange> WriteWithPassages(const std::vector<std::string>& passages,
                                             const std::string& question,
                                             const std::string& answer) const;
  Tokens Encode(std::string_view text) const { return tokenizer_.Encode(text).ids; }
  int32_t end_id() const;
  const model::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  const model::Tokenizer& tokenizer_;
  model::ChatFormat format_;
  const std::string* system_prompt_;
};

// Files of JSON records, one a line, plain or compressed (.zst). With `context`, `question` and
// `answers` (strings; `answer` with one): a question; with `text`: a book. Records of a kind that
// neither is are InvalidArgument, with file and line; so is a file without records. At most
// `max_tokens` of books are taken, from the first on. Of a context that is much longer than a
// passage that is read again, what stands around the answer is taken, each time another stretch; a
// question whose answer does not stand there is passed over.
absl::StatusOr<TrainingTexts> ReadTrainingTexts(const std::vector<std::filesystem::path>& files,
                                                const ExchangeWriter& writer, int64_t max_tokens,
                                                const Progress& progress);

}  // namespace fovea::train
