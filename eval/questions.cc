#include "eval/questions.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/strings.h"
#include "documents/text_document.h"
#include "eval/books.h"
#include "texts/random.h"
#include "texts/record_file.h"

namespace fovea::eval {
namespace {

const std::vector<std::string> kMeasures = {"F1", "exact match", "right", "named"};

// One row a way, of one filling of the memory.
absl::Status AddRows(const Subject& subject, const TestMemory& memory,
                     const std::vector<Question>& questions, const std::vector<Way>& ways,
                     const OutcomeVisitor& visit, Report* report) {
  for (const Way& way : ways) {
    ASSIGN_OR_RETURN(const std::vector<Outcome> outcomes,
                     AskAll(subject, memory, questions, way, visit));
    Row row = {{"tokens", static_cast<int64_t>(memory.n_tokens())}};
    for (auto& cell : Summarize(way, outcomes, kMeasures)) row.push_back(std::move(cell));
    report->rows.push_back(std::move(row));
  }
  return absl::OkStatus();
}

struct Passages {
  std::vector<Document> documents;
  std::vector<Question> questions;
};

// The questions that are asked, and the passages that the memory is to hold.
absl::StatusOr<Passages> ChooseQuestions(const QuestionsOptions& options) {
  if (options.questions.empty()) {
    return absl::InvalidArgumentError(
        "no questions: pass --questions FILE, JSON records with `context`, `question` and "
        "`answers`, one a line (.jsonl, .jsonl.zst)");
  }
  std::vector<texts::Record> records;
  for (const std::filesystem::path& file : options.questions) {
    RETURN_IF_ERROR(texts::ReadRecords(file, [&](texts::Record record) -> absl::StatusOr<bool> {
      if (record.text.empty()) records.push_back(std::move(record));
      return true;
    }));
  }
  if (records.empty()) {
    return absl::InvalidArgumentError(StrCat(options.questions.front(), ": holds texts, and no ",
                                             "questions (`context`, `question`, `answers`)"));
  }
  texts::Random random(options.common.seed, 0);
  random.Shuffle(&records);
  Passages passages;
  std::map<std::string, std::string> sources;  // by context
  const auto n_asked = std::min(records.size(), static_cast<size_t>(options.n_questions));
  for (size_t i = 0; i < records.size(); ++i) {
    texts::Record& record = records[i];
    const bool is_asked = i < n_asked;
    if (!is_asked && static_cast<int64_t>(sources.size()) >= options.n_passages) break;
    const auto [source, is_new] =
        sources.try_emplace(record.context, StrCat("passage ", sources.size()));
    if (is_new) passages.documents.push_back({.source = source->second, .text = record.context});
    if (!is_asked) continue;
    passages.questions.push_back({.text = std::move(record.question),
                                  .answers = std::move(record.answers),
                                  .passage = std::move(record.context),
                                  .source = source->second});
  }
  return passages;
}

}  // namespace

absl::StatusOr<Report> RunQuestions(const Subject& subject, const QuestionsOptions& options) {
  const CommonOptions& common = options.common;
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  ASSIGN_OR_RETURN(const Passages passages, ChooseQuestions(options));
  Report report{.evaluation = "questions",
                .settings = {{"questions", static_cast<int64_t>(passages.questions.size())},
                             {"passages", static_cast<int64_t>(passages.documents.size())}},
                .rows = {},
                .plot = {.x = "way", .y = "F1", .series = "tokens"}};
  for (const int64_t tokens : common.tokens) {
    ASSIGN_OR_RETURN(const std::vector<Book> books,
                     ReadBooks(common.texts, subject.model->tokenizer(), tokens, subject.progress));
    std::vector<Document> documents = ToDocuments(books, "default");
    documents.insert(documents.end(), passages.documents.begin(), passages.documents.end());
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, StrCat("questions-", tokens)));
    RETURN_IF_ERROR(memory->Fill(documents));
    report.settings.emplace_back(StrCat("text hash, ", tokens), memory->TextHash());
    RETURN_IF_ERROR(AddRows(subject, *memory, passages.questions, ways, common.visit, &report));
  }
  return report;
}

namespace {

// About as long as a passage that is read again.
constexpr size_t kPassageBytes = 700;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }

// Where `quote` stands in `text`, but for the kind of white space; [npos, npos) where it does not.
std::pair<size_t, size_t> FindQuote(std::string_view text, std::string_view quote) {
  for (size_t begin = 0; begin < text.size(); ++begin) {
    size_t at = begin;
    size_t i = 0;
    while (i < quote.size() && at < text.size()) {
      if (IsSpace(quote[i]) && IsSpace(text[at])) {
        while (i < quote.size() && IsSpace(quote[i])) ++i;
        while (at < text.size() && IsSpace(text[at])) ++at;
      } else if (quote[i] == text[at]) {
        ++i;
        ++at;
      } else {
        break;
      }
    }
    if (i == quote.size() && at > begin) return {begin, at};
  }
  return {std::string_view::npos, std::string_view::npos};
}

// The quote with what stands around it, from space to space.
std::string PassageAround(const std::string& text, size_t begin, size_t end) {
  const size_t spare = (kPassageBytes - std::min(kPassageBytes, end - begin)) / 2;
  size_t first = begin - std::min(begin, spare);
  size_t last = std::min(text.size(), end + spare);
  if (first > 0) first = std::min(text.find(' ', first), begin);
  if (last < text.size()) {
    const size_t space = text.rfind(' ', last);
    last = space == std::string::npos || space < end ? end : space;
  }
  return text.substr(first, last - first);
}

absl::StatusOr<std::string> ReadWhole(documents::TextDocument& document) {
  constexpr size_t kPiece = size_t{1} << 20;
  std::string text;
  for (;;) {
    const size_t before = text.size();
    RETURN_IF_ERROR(document.Read(kPiece, &text));
    if (text.size() == before) return text;
  }
}

// The documents of a folder by the names of their files.
absl::StatusOr<std::map<std::string, std::string>> ReadFolder(const std::filesystem::path& folder,
                                                              const std::filesystem::path& except) {
  ASSIGN_OR_RETURN(const documents::FileList list, documents::ListDocuments(folder, true));
  std::map<std::string, std::string> texts;
  for (const std::filesystem::path& file : list.files) {
    if (file == except) continue;
    const std::string name = file.lexically_relative(folder).native();
    RETURN_IF_ERROR(documents::ReadDocuments(
        file, documents::ReadLimits(),
        [&](const std::string&,
            absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) -> absl::Status {
          if (!document.ok()) return document.status();
          ASSIGN_OR_RETURN(texts[name], ReadWhole(**document));
          return absl::OkStatus();
        }));
  }
  return texts;
}

}  // namespace

absl::StatusOr<Report> RunNatural(const Subject& subject, const NaturalOptions& options) {
  const CommonOptions& common = options.common;
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  const std::filesystem::path file = options.folder / "questions.jsonl";
  using Texts = std::map<std::string, std::string>;
  ASSIGN_OR_RETURN(const Texts texts, ReadFolder(options.folder, file));
  std::vector<Question> questions;
  int64_t n_left_out = 0;
  ASSIGN_OR_RETURN(const auto reader, texts::LineReader::Open(file));
  std::string line;
  for (int64_t n_lines = 1;; ++n_lines) {
    ASSIGN_OR_RETURN(const bool has_line, reader->Next(&line));
    if (!has_line) break;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = StrCat(file, ", line ", n_lines, ": ");
    Question question;
    std::string quote;
    try {
      const nlohmann::json record = nlohmann::json::parse(line);
      question.text = record.at("question").get<std::string>();
      question.answers = record.at("answers").get<std::vector<std::string>>();
      question.source = record.at("document").get<std::string>();
      quote = record.at("quote").get<std::string>();
      question.kind = record.value("kind", "");
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(
          StrCat(where, "want question, answers (a list), document and quote: ", error.what()));
    }
    const auto text = texts.find(question.source);
    if (text == texts.end()) {
      ++n_left_out;
      continue;
    }
    std::tie(question.begin, question.end) = FindQuote(text->second, quote);
    if (question.begin == std::string_view::npos || question.answers.empty()) {
      return absl::InvalidArgumentError(StrCat(where, question.source, " does not hold \"", quote,
                                               "\", or there are no answers"));
    }
    question.passage = PassageAround(text->second, question.begin, question.end);
    questions.push_back(std::move(question));
    if (options.n_questions > 0 && static_cast<int64_t>(questions.size()) >= options.n_questions) {
      break;
    }
  }
  if (questions.empty()) {
    return absl::InvalidArgumentError(
        StrCat(file, ": none of its ", n_left_out, " questions is about a document of the folder"));
  }
  std::vector<Document> documents;
  for (const auto& [name, text] : texts) documents.push_back({.source = name, .text = text});
  ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, "natural"));
  RETURN_IF_ERROR(memory->Fill(documents));
  Report report{.evaluation = "natural",
                .settings = {{"questions", static_cast<int64_t>(questions.size())},
                             {"left out", n_left_out},
                             {"documents", static_cast<int64_t>(documents.size())},
                             {"text hash", memory->TextHash()}},
                .rows = {},
                .plot = {.x = "way", .y = "F1", .series = "tokens"}};
  RETURN_IF_ERROR(AddRows(subject, *memory, questions, ways, common.visit, &report));
  return report;
}

}  // namespace fovea::eval
