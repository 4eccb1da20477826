#include "train/self_study.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "answer/prompt.h"
#include "base/file.h"
#include "base/strings.h"
#include "index/text_words.h"
#include "memory/generation.h"
#include "memory/text_index_file.h"
#include "train/training_texts.h"

namespace fovea::train {
namespace {

using nlohmann::json;

// What there is something to ask about.
constexpr size_t kShortestPassage = 100;  // bytes
constexpr int kMostQuestionTokens = 48;
constexpr int kMostAnswerTokens = 48;
// Of an answer's words: those that stand in the passage or in the question.
constexpr double kLeastShareOfWords = 0.8;

struct StudiedPassage {
  std::string text;
  std::string source;
  std::set<std::string> asked = {};  // words of the questions
};

absl::StatusOr<std::vector<StudiedPassage>> ReadPassages(const memory::Generation& generation,
                                                         const Progress& progress) {
  std::vector<StudiedPassage> passages;
  for (const memory::LiveWindow& window : generation.windows) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    ASSIGN_OR_RETURN(const storage::WindowRecord record,
                     memory::ReadWindow(generation, window.slot_begin));
    for (const index::PassageText& passage : memory::TextOf(record).passages) {
      if (passage.text.size() < kShortestPassage) continue;
      passages.push_back({.text = std::string(passage.text),
                          .source = generation.documents[window.document].source()});
    }
  }
  return passages;
}

std::set<std::string> WordsOf(std::string_view text) {
  std::set<std::string> words;
  index::ForEachWord(text,
                     [&](const index::TextWord& word) { words.insert(std::string(word.text)); });
  return words;
}

bool IsFromThePassage(const std::string& answer, const StudiedPassage& passage,
                      const std::string& question) {
  const std::set<std::string> words = WordsOf(answer);
  if (words.empty()) return false;
  const std::set<std::string> known = WordsOf(StrCat(passage.text, " ", question));
  const auto n = std::count_if(words.begin(), words.end(),
                               [&](const std::string& word) { return known.contains(word); });
  return static_cast<double>(n) >= kLeastShareOfWords * static_cast<double>(words.size());
}

answer::Request MakeRequest(const StudiedPassage& passage, std::string_view task, int max_tokens) {
  answer::Request request;
  const std::string texts[] = {passage.text};
  request.messages.push_back(
      {model::ChatMessage::Role::kUser, answer::UserMessage(texts, std::string(task))});
  request.options.use_memory = false;
  request.options.reread = 0;
  request.options.n_sources = 0;
  request.options.max_tokens = max_tokens;
  return request;
}

// The first line, without the quotation marks that small models put around a question.
std::string CleanLine(std::string text) {
  const size_t line_end = text.find('\n');
  if (line_end != std::string::npos) text.resize(line_end);
  constexpr std::string_view kAround = " \t\r\"";
  const size_t begin = text.find_first_not_of(kAround);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kAround) + 1 - begin);
}

}  // namespace

absl::StatusOr<SelfStudyResult> WriteSelfStudy(memory::Memory* memory,
                                               const answer::Answerer& answerer,
                                               const SelfStudyOptions& options,
                                               const std::filesystem::path& file,
                                               const Progress& progress) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  const auto generation = memory->Current();
  ASSIGN_OR_RETURN(std::vector<StudiedPassage> passages, ReadPassages(*generation, progress));
  if (passages.empty()) {
    return absl::NotFoundError(StrCat(memory->folder(), ": no passage of at least ",
                                      kShortestPassage, " bytes to ask about"));
  }
  SelfStudyResult result;
  result.n_passages = static_cast<int64_t>(passages.size());
  const int64_t total = result.n_passages * options.questions_per_passage;
  std::string lines;
  const auto is_over = [&] {
    return options.n_seconds > 0.0 &&
           std::chrono::duration<double>(Clock::now() - begin).count() >= options.n_seconds;
  };
  constexpr int64_t kAtATime = 64;
  for (int64_t at = 0; at < total && !is_over(); at += kAtATime) {
    RETURN_IF_ERROR(progress.Report(
        {.stage = "ask about the texts", .done = at, .total = total, .unit = "questions"}));
    const auto passage_of = [&](int64_t i) -> StudiedPassage& {
      return passages[static_cast<size_t>(i % result.n_passages)];
    };
    std::vector<answer::Request> requests;
    std::vector<int64_t> of;  // which question each request is about
    for (int64_t i = at; i < std::min(total, at + kAtATime); ++i) {
      requests.push_back(MakeRequest(passage_of(i), kAskForQuestion, kMostQuestionTokens));
      requests.back().options.temperature = options.temperature;
      requests.back().options.seed = options.seed + static_cast<uint64_t>(i) + 1;
      of.push_back(i);
    }
    result.n_asked += static_cast<int64_t>(requests.size());
    const auto asked = answerer.RunAll(requests);
    std::vector<std::string> questions;
    std::vector<int64_t> about;
    requests.clear();
    for (size_t r = 0; r < asked.size(); ++r) {
      RETURN_IF_ERROR(asked[r].status());
      if (asked[r]->finish_reason != "stop") continue;
      std::string question = CleanLine(asked[r]->text);
      std::string words = index::PassageWords(question);
      StudiedPassage& passage = passage_of(of[r]);
      if (words.empty() || !passage.asked.insert(std::move(words)).second) continue;
      requests.push_back(MakeRequest(passage, question, kMostAnswerTokens));
      questions.push_back(std::move(question));
      about.push_back(of[r]);
    }
    RETURN_IF_ERROR(progress.CheckCancelled());
    const auto answers = answerer.RunAll(requests);
    for (size_t r = 0; r < answers.size(); ++r) {
      RETURN_IF_ERROR(answers[r].status());
      const StudiedPassage& passage = passage_of(about[r]);
      if (answers[r]->finish_reason != "stop" || answers[r]->text.empty() ||
          !IsFromThePassage(answers[r]->text, passage, questions[r])) {
        continue;
      }
      lines += json({{"context", passage.text},
                     {"question", questions[r]},
                     {"answers", {answers[r]->text}},
                     {"source", passage.source}})
                   .dump(-1, ' ', false, json::error_handler_t::replace);
      lines += '\n';
      ++result.n_kept;
    }
  }
  RETURN_IF_ERROR(WriteFileAtomic(file, lines));
  return result;
}

absl::Status WriteDocuments(memory::Memory* memory, const std::filesystem::path& file,
                            const Progress& progress) {
  const auto generation = memory->Current();
  std::string lines;
  for (const storage::DocumentRecord& document : generation->documents) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    std::string text;
    RETURN_IF_ERROR(memory::ReadText(*generation, document, [&](std::string_view piece) {
      text += piece;
      return absl::OkStatus();
    }));
    if (text.empty()) continue;
    lines += json({{"text", std::move(text)}, {"title", document.title()}})
                 .dump(-1, ' ', false, json::error_handler_t::replace);
    lines += '\n';
  }
  return WriteFileAtomic(file, lines);
}

}  // namespace fovea::train
