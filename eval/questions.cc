#include "eval/questions.h"

#include <utility>

#include "base/strings.h"
#include "eval/books.h"

namespace fovea::eval {
namespace {

constexpr char kOtherText[] = "other text";

}  // namespace

absl::StatusOr<Report> RunQuestionSet(const Subject& subject, const std::string& evaluation,
                                      const QuestionSet& set, const CommonOptions& common) {
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  Report report{.evaluation = evaluation,
                .settings = {{"questions", static_cast<int64_t>(set.questions.size())},
                             {"documents", static_cast<int64_t>(set.documents.size())}},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "way", .y = "F1", .series = "tokens"}};
  if (set.n_left_out > 0) report.settings.emplace_back("left out", set.n_left_out);
  for (const int64_t tokens : common.tokens) {
    ASSIGN_OR_RETURN(const std::vector<Book> books,
                     ReadBooks(common.texts, subject.model->tokenizer(), tokens, subject.progress));
    std::vector<Document> documents = ToDocuments(books, kOtherText);
    documents.insert(documents.end(), set.documents.begin(), set.documents.end());
    std::vector<Question> questions = set.questions;
    for (Question& question : questions) {
      std::vector<std::string>& seen = question.scope.collections;
      if (!seen.empty() && !books.empty()) seen.emplace_back(kOtherText);
    }
    ASSIGN_OR_RETURN(const auto memory,
                     TestMemory::Open(&subject, StrCat(evaluation, "-", tokens)));
    RETURN_IF_ERROR(memory->Fill(documents));
    report.text_hashes.emplace_back(StrCat(tokens), memory->TextHash());
    Tally tally(&subject, &ways, &common.visit);
    RETURN_IF_ERROR(tally.Ask(*memory, questions));
    tally.AddRows(*memory, {"F1", "exact match", "right", "named"}, &report);
  }
  return report;
}

}  // namespace fovea::eval
