#include "eval/natural.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "base/strings.h"
#include "documents/text_document.h"
#include "eval/json_error.h"
#include "eval/questions.h"
#include "texts/record_file.h"

namespace fovea::eval {
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

std::string FirstNames(const std::set<std::string>& names) {
  constexpr size_t kMost = 5;
  std::string text;
  size_t n = 0;
  for (const std::string& name : names) {
    if (n++ == kMost) return StrCat(text, " and ", names.size() - kMost, " more");
    text += StrCat(text.empty() ? "" : ", ", name);
  }
  return text;
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
  const std::filesystem::path file = options.folder / "questions.jsonl";
  using Texts = std::map<std::string, std::string>;
  ASSIGN_OR_RETURN(const Texts texts, ReadFolder(options.folder, file));
  std::vector<Question> questions;
  int64_t n_left_out = 0;
  std::set<std::string> absent;  // names of documents
  RETURN_IF_ERROR(texts::ReadLines(file, [&](const std::string& line) -> absl::StatusOr<bool> {
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
      return JsonError("question, answers (a list), document and quote", error);
    }
    const auto text = texts.find(question.source);
    if (text == texts.end()) {
      ++n_left_out;
      absent.insert(question.source);
      return true;
    }
    std::tie(question.begin, question.end) = FindQuote(text->second, quote);
    if (question.begin == std::string_view::npos || question.answers.empty()) {
      return absl::InvalidArgumentError(
          StrCat(question.source, " does not hold \"", quote, "\", or there are no answers"));
    }
    question.passage = PassageAround(text->second, question.begin, question.end);
    questions.push_back(std::move(question));
    return options.n_questions == 0 || static_cast<int64_t>(questions.size()) < options.n_questions;
  }));
  if (questions.empty()) {
    return absl::InvalidArgumentError(
        StrCat(file, ": none of its ", n_left_out, " questions is about a document of the folder",
               absent.empty() ? "" : StrCat(": there is no ", FirstNames(absent))));
  }
  QuestionSet set{.documents = {}, .questions = std::move(questions), .n_left_out = n_left_out};
  for (const auto& [name, text] : texts) set.documents.push_back({.source = name, .text = text});
  ASSIGN_OR_RETURN(Report report, RunQuestionSet(subject, "natural", set, options.common));
  if (!absent.empty()) report.settings.emplace_back("not in the folder", FirstNames(absent));
  return report;
}

}  // namespace fovea::eval
