#include "eval/question_files.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "eval/json_error.h"
#include "texts/random.h"
#include "texts/record_file.h"

namespace fovea::eval {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

absl::Status CheckFiles(const std::vector<fs::path>& files, std::string_view wanted) {
  if (!files.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("no questions: pass --questions FILE, ", wanted));
}

template <typename T>
void Choose(const Choice& choice, std::vector<T>* items) {
  texts::Random random(choice.seed, 0);
  random.Shuffle(items);
  if (static_cast<int64_t>(items->size()) > choice.n_questions) {
    items->resize(static_cast<size_t>(choice.n_questions));
  }
}

}  // namespace

absl::StatusOr<QuestionSet> ReadQuestions(const std::vector<fs::path>& files, const Choice& choice,
                                          int64_t n_passages) {
  constexpr std::string_view kWanted =
      "JSON records with `context`, `question` and `answers`, one a line (.jsonl, .jsonl.zst)";
  RETURN_IF_ERROR(CheckFiles(files, kWanted));
  std::vector<texts::Record> records;
  for (const fs::path& file : files) {
    RETURN_IF_ERROR(texts::ReadRecords(file, [&](texts::Record record) -> absl::StatusOr<bool> {
      if (record.text.empty()) records.push_back(std::move(record));
      return true;
    }));
  }
  if (records.empty()) {
    return absl::InvalidArgumentError(StrCat(files.front(), ": holds texts alone: want ", kWanted));
  }
  texts::Random random(choice.seed, 0);
  random.Shuffle(&records);
  QuestionSet set;
  std::map<std::string, std::string> sources;  // by context
  const auto n_asked = std::min(records.size(), static_cast<size_t>(choice.n_questions));
  for (size_t i = 0; i < records.size(); ++i) {
    texts::Record& record = records[i];
    const bool is_asked = i < n_asked;
    if (!is_asked && static_cast<int64_t>(sources.size()) >= n_passages) break;
    const auto [source, is_new] =
        sources.try_emplace(record.context, StrCat("passage ", sources.size()));
    if (is_new) set.documents.push_back({.source = source->second, .text = record.context});
    if (!is_asked) continue;
    set.questions.push_back({.text = std::move(record.question),
                             .answers = std::move(record.answers),
                             .passage = std::move(record.context),
                             .source = source->second});
  }
  return set;
}

absl::StatusOr<QuestionSet> ReadStories(const std::vector<fs::path>& files, const Choice& choice) {
  constexpr std::string_view kWanted =
      "bAbI's lines: a number and a sentence, or a number, a question, a tab and its answer";
  RETURN_IF_ERROR(CheckFiles(files, kWanted));
  std::vector<Question> questions;
  for (const fs::path& file : files) {
    std::string story;
    const auto add = [&](const std::string& line) -> absl::StatusOr<bool> {
      const size_t space = line.find(' ');
      if (space == 0 || space == std::string::npos ||
          line.find_first_not_of("0123456789") != space) {
        return absl::InvalidArgumentError(StrCat("want ", kWanted));
      }
      if (line.substr(0, space) == "1") story.clear();  // the first line of another one
      const std::string rest = line.substr(space + 1);
      const size_t tab = rest.find('\t');
      if (tab == std::string::npos) {
        story += rest + "\n";
        return true;
      }
      if (story.empty()) return absl::InvalidArgumentError("a question before its story");
      const size_t end = std::min(rest.find('\t', tab + 1), rest.size());
      questions.push_back({.text = rest.substr(0, rest.find_last_not_of(" \t", tab) + 1),
                           .answers = {rest.substr(tab + 1, end - tab - 1)},
                           .passage = story,
                           .kind = file.filename().native()});
      return true;
    };
    RETURN_IF_ERROR(texts::ReadLines(file, add));
  }
  if (questions.empty()) {
    return absl::InvalidArgumentError(StrCat(files.front(), ": no questions: want ", kWanted));
  }
  Choose(choice, &questions);
  QuestionSet set;
  for (Question& question : questions) {
    question.source = StrCat("story ", set.documents.size());
    question.scope.collections = {question.source};
    // Stories that are alike would be one document in several collections, which is as good.
    set.documents.push_back(
        {.source = question.source, .text = question.passage, .collection = question.source});
  }
  set.questions = std::move(questions);
  return set;
}

absl::StatusOr<QuestionSet> ReadNaturalQuestions(const std::vector<fs::path>& files,
                                                 const Choice& choice) {
  constexpr std::string_view kWanted =
      "JSON records with question, answers and ctxs (title, text, isgold), one a line";
  RETURN_IF_ERROR(CheckFiles(files, kWanted));
  struct Entry {
    Question question;
    std::vector<std::string> others;  // passages
  };
  std::vector<Entry> entries;
  for (const fs::path& file : files) {
    const auto add = [&](const std::string& line) -> absl::StatusOr<bool> {
      try {
        const json record = json::parse(line);
        Entry entry;
        entry.question.text = record.at("question").get<std::string>();
        entry.question.answers = record.at("answers").get<std::vector<std::string>>();
        for (const json& passage : record.at("ctxs")) {
          std::string text =
              StrCat(passage.value("title", ""), "\n", passage.at("text").get<std::string>());
          const bool is_gold = passage.contains("isgold") ? passage.at("isgold").get<bool>()
                                                          : passage.value("hasanswer", false);
          if (is_gold && entry.question.passage.empty()) {
            entry.question.passage = std::move(text);
          } else {
            entry.others.push_back(std::move(text));
          }
        }
        if (entry.question.passage.empty() || entry.question.answers.empty()) {
          return absl::InvalidArgumentError("no passage is gold, or there are no answers");
        }
        entries.push_back(std::move(entry));
      } catch (const json::exception& error) {
        return JsonError(kWanted, error);
      }
      return true;
    };
    RETURN_IF_ERROR(texts::ReadLines(file, add));
  }
  if (entries.empty()) {
    return absl::InvalidArgumentError(StrCat(files.front(), ": no questions: want ", kWanted));
  }
  Choose(choice, &entries);
  QuestionSet set;
  std::map<std::string, std::string> sources;  // by text: passages are shared by questions
  const auto add = [&](const std::string& text) -> const std::string& {
    const auto [source, is_new] = sources.try_emplace(text, StrCat("passage ", sources.size()));
    if (is_new) set.documents.push_back({.source = source->second, .text = text});
    return source->second;
  };
  for (Entry& entry : entries) {
    entry.question.source = add(entry.question.passage);
    for (const std::string& other : entry.others) add(other);
    set.questions.push_back(std::move(entry.question));
  }
  return set;
}

absl::StatusOr<QuestionSet> ReadConversations(const std::vector<fs::path>& files,
                                              const Choice& choice) {
  constexpr std::string_view kWanted =
      "LoCoMo's JSON: a list of samples with conversation (session_N, session_N_date_time) and qa";
  constexpr int kUnanswerable = 5;
  RETURN_IF_ERROR(CheckFiles(files, kWanted));
  QuestionSet set;
  for (const fs::path& file : files) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file));
    try {
      for (const json& sample : json::parse(bytes)) {
        const std::string name = StrCat("conversation ", sample.value("sample_id", ""));
        struct Turn {
          std::string source;
          uint64_t begin = 0;
          uint64_t end = 0;
          std::string text;
        };
        std::map<std::string, Turn> turns;  // by dia_id
        const json& conversation = sample.at("conversation");
        for (int session = 1; conversation.contains(StrCat("session_", session)); ++session) {
          const std::string key = StrCat("session_", session);
          const std::string date = StrCat(conversation.value(key + "_date_time", ""), "\n");
          Document document{.source = StrCat(name, ", ", key), .text = date, .collection = name};
          for (const json& turn : conversation.at(key)) {
            const uint64_t begin = document.text.size();
            document.text += StrCat(turn.at("speaker").get<std::string>(), ": ",
                                    turn.at("text").get<std::string>(), "\n");
            turns[turn.at("dia_id").get<std::string>()] = {
                document.source, begin, document.text.size(), date + document.text.substr(begin)};
          }
          set.documents.push_back(std::move(document));
        }
        for (const json& qa : sample.at("qa")) {
          if (qa.value("category", 0) == kUnanswerable || !qa.contains("answer")) continue;
          const json& answer = qa.at("answer");
          Question question{
              .text = qa.at("question").get<std::string>(),
              .answers = {answer.is_string() ? answer.get<std::string>() : answer.dump()},
              .passage = "",
              .kind = StrCat("category ", qa.value("category", 0)),
              .scope = {.collections = {name}, .documents = {}}};
          for (const json& evidence : qa.value("evidence", json::array())) {
            const auto turn = turns.find(evidence.get<std::string>());
            if (turn == turns.end()) continue;
            if (question.source.empty()) {
              question.source = turn->second.source;
              question.begin = turn->second.begin;
              question.end = turn->second.end;
            }
            question.passage += turn->second.text;
          }
          if (question.source.empty()) {
            ++set.n_left_out;  // nothing says where its answer stands
          } else {
            set.questions.push_back(std::move(question));
          }
        }
      }
    } catch (const json::exception& error) {
      return Annotate(JsonError(kWanted, error), file.native());
    }
  }
  if (set.questions.empty()) {
    return absl::InvalidArgumentError(StrCat(files.front(), ": no questions: want ", kWanted));
  }
  Choose(choice, &set.questions);
  return set;
}

}  // namespace fovea::eval
