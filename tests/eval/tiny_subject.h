// The tiny model as the subject of an evaluation, and answerers that know everything or nothing.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "eval/evaluation.h"
#include "tests/answer/scripted_answerer.h"
#include "tests/answer/tiny_memory.h"

namespace fovea::eval {

// Of a document, as an answer names it.
inline memory::Passage PassageOf(const std::string& document, uint64_t start, uint64_t end) {
  memory::Passage passage;
  passage.document = document;
  passage.start = start;
  passage.end = end;
  return passage;
}

// Answers questions from a list, and names one source with each; others with nothing.
class KnownAnswers final : public answer::ScriptedAnswerer {
 public:
  struct Known {
    std::string answer;
    memory::Passage source;
  };
  using List = std::map<std::string, Known>;  // by question
  explicit KnownAnswers(const List* known) : known_(*known) {}

  absl::StatusOr<answer::Answer> Run(const answer::Request& request) const override {
    answer::Answer answer;
    answer.question = request.messages.back().content;
    answer.finish_reason = "stop";
    const auto found = known_.find(answer.question);
    if (found == known_.end()) return answer;
    answer.text = found->second.answer;
    answer.sources = {found->second.source};
    return answer;
  }

 private:
  const List& known_;
};

class TinySubjectTest : public answer::TinyMemoryTest {
 protected:
  void SetUp() override {
    TinyMemoryTest::SetUp();
    LoadModel();
    subject_ = {.device = device_.get(),
                .model = model_.get(),
                .model_name = "tiny",
                .adapter_name = "none",
                .folder = folder_ / "memories",
                .window = 128,
                .overlap = 16};
  }

  std::filesystem::path Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  // Books of words that repeat little; more than 64,000 bytes.
  std::filesystem::path WriteBooks(int n_books = 4) const {
    std::string lines;
    for (int book = 0; book < n_books; ++book) {
      std::string text;
      for (int i = 0; i < 900; ++i) {
        text += StrCat("On day ", i * 7 % 1000, " of year ", book, " Mara of Tolm saw lamp ",
                       i * i % 977, ". ");
      }
      lines += StrCat(R"({"title": "Book )", book, R"(", "text": ")", text, "\"}\n");
    }
    return Write("books.jsonl", lines);
  }

  // From now on answers come from a list, which is empty until the questions are known.
  void AnswerFromList() {
    subject_.create_answerer =
        [this](compute::Device*, model::Transformer*,
               memory::Memory*) -> absl::StatusOr<std::unique_ptr<answer::Answerer>> {
      return std::make_unique<KnownAnswers>(&known_);
    };
  }
  // Remembers what is asked, and what would be right.
  OutcomeVisitor Listen() {
    return [this](const Way&, const Question& question, const Outcome&) {
      asked_.push_back(question);
      return absl::OkStatus();
    };
  }

  // The first cell of this name in a row.
  static const Cell& Get(const Row& row, const std::string& name) {
    for (const auto& [known, cell] : row) {
      if (known == name) return cell;
    }
    ADD_FAILURE() << "no " << name;
    static const Cell kNone = std::string();
    return kNone;
  }
  static double Value(const Row& row, const std::string& name) {
    const Cell& cell = Get(row, name);
    if (const auto* score = std::get_if<Score>(&cell)) return score->value;
    if (const auto* number = std::get_if<double>(&cell)) return *number;
    if (const auto* count = std::get_if<int64_t>(&cell)) return static_cast<double>(*count);
    ADD_FAILURE() << name << " is no number";
    return 0.0;
  }
  static std::string Text(const Row& row, const std::string& name) {
    return std::get<std::string>(Get(row, name));
  }
  // All but times, to compare reports by.
  static std::string Written(const Report& report) {
    std::string text;
    for (const Row& row : report.rows) {
      for (const auto& [name, cell] : row) {
        if (name == "seconds") continue;
        text += StrCat(name, "=",
                       std::holds_alternative<std::string>(cell) ? std::get<std::string>(cell)
                                                                 : StrCat(Value(row, name)),
                       ";");
      }
      text += "\n";
    }
    for (const auto& [name, hash] : report.text_hashes) text += StrCat(name, "=", hash, "\n");
    return text;
  }

  Subject subject_;
  KnownAnswers::List known_;
  std::vector<Question> asked_;
};

}  // namespace fovea::eval
