#include "eval/ways.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <iterator>
#include <optional>
#include <utility>

#include "answer/prompt.h"
#include "base/strings.h"

namespace fovea::eval {
namespace {

constexpr int kSources = 3;
constexpr char kWays[] =
    "memory, passage, bm25[:N], attention[:N], both[:N], default, closed (N: passages)";

// "bm25:3" → how, and 3. Empty where the name is none of these.
absl::StatusOr<std::optional<Way>> ParseReread(const std::string& name) {
  const size_t colon = name.find(':');
  const absl::StatusOr<answer::RereadBy> by = answer::ParseRereadBy(name.substr(0, colon));
  if (!by.ok()) return std::optional<Way>();
  int n_passages = 1;
  if (colon != std::string::npos) {
    constexpr int kMostPassages = 1000;
    const char* const begin = name.data() + colon + 1;
    const char* const end = name.data() + name.size();
    const auto [parsed, error] = std::from_chars(begin, end, n_passages);
    if (error != std::errc() || parsed != end || n_passages < 1 || n_passages > kMostPassages) {
      return absl::InvalidArgumentError(StrCat("way \"", name,
                                               "\": want a number of passages, 1 to ",
                                               kMostPassages, ", after the colon"));
    }
  }
  Way way{.name = name, .options = {}, .has_memory = true};
  way.options.reread = n_passages;
  way.options.reread_by = *by;
  way.options.reread_memory = false;
  return std::optional<Way>(std::move(way));
}

std::string Part(AnswerPart part, const std::string& answer) {
  constexpr char kDigits[] = "0123456789";
  size_t begin = 0;
  size_t end = answer.size();
  if (part == AnswerPart::kFirstLine) {
    begin = std::min(answer.find_first_not_of(" \t\r\n"), answer.size());
    end = std::min(answer.find('\n', begin), answer.size());
  } else if (part == AnswerPart::kFirstNumber) {
    begin = std::min(answer.find_first_of(kDigits), answer.size());
    end = std::min(answer.find_first_not_of(kDigits, begin), answer.size());
  }
  return answer.substr(begin, end - begin);
}

absl::Status CheckMemoryLayers(const std::string& way, const model::Transformer& model) {
  if (model.n_mem_layers() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat("way \"", way,
             "\" needs memory layers, and the model has none: name some with "
             "--mem-layers or --adapter, or leave the way out of --ways"));
}

}  // namespace

absl::Status CheckWayName(const std::string& name) {
  for (const char* known : {"memory", "passage", "default", "closed"}) {
    if (name == known) return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<Way> reread, ParseReread(name));
  if (reread.has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("way \"", name, "\": want some of ", kWays));
}

absl::StatusOr<std::vector<Way>> MakeWays(const WayOptions& options,
                                          const model::Transformer& model) {
  std::vector<Way> ways;
  for (const std::string& name : options.ways) {
    if (name == "memory") {
      RETURN_IF_ERROR(CheckMemoryLayers(name, model));
      for (const std::string& mode : options.modes) {
        Way way{.name = StrCat("memory, ", mode), .options = {}, .has_memory = true};
        ASSIGN_OR_RETURN(way.options.mode, memory::ParseSearchMode(mode));
        way.options.reread = 0;
        way.options.top_k = options.top_k;
        ways.push_back(std::move(way));
      }
    } else if (name == "default") {
      ways.push_back({.name = name, .options = {}, .has_memory = true});
    } else if (name == "passage" || name == "closed") {
      Way way{.name = name, .options = {}, .has_passage = name == "passage"};
      way.options.use_memory = false;
      way.options.reread = 0;
      ways.push_back(std::move(way));
    } else {
      RETURN_IF_ERROR(CheckWayName(name));
      ASSIGN_OR_RETURN(std::optional<Way> reread, ParseReread(name));
      if (reread->options.reread_by != answer::RereadBy::kBm25) {
        RETURN_IF_ERROR(CheckMemoryLayers(name, model));
      }
      ways.push_back(*std::move(reread));
    }
  }
  if (ways.empty()) return absl::InvalidArgumentError(StrCat("no way to ask: want ", kWays));
  for (Way& way : ways) {
    way.options.max_tokens = options.max_tokens;
    way.options.n_sources = kSources;
  }
  return ways;
}

Outcome Grade(const Question& question, const std::string& answer) {
  const std::string judged = Part(question.judged, answer);
  return {.answer = answer,
          .f1 = WordF1(judged, question.answers),
          .is_exact = IsExactMatch(judged, question.answers),
          .is_held = Holds(judged, question.answers)};
}

absl::StatusOr<std::vector<Outcome>> AskAll(const Subject& subject, const TestMemory& memory,
                                            std::span<const Question> questions, const Way& way,
                                            const OutcomeVisitor& visit) {
  using Clock = std::chrono::steady_clock;
  std::vector<Outcome> outcomes;
  for (const Question& question : questions) {
    answer::Request request;
    request.options = way.options;
    request.options.scope = question.scope;
    request.options.raw = question.raw;
    if (question.judged == AnswerPart::kFirstLine) request.options.stop = {"\n"};
    std::string text = question.text;
    if (way.has_passage) {
      const std::string passages[] = {question.passage};
      text = answer::UserMessage(passages, question.text);
    }
    request.messages.push_back({model::ChatMessage::Role::kUser, std::move(text)});
    const Clock::time_point start = Clock::now();
    absl::StatusOr<answer::Answer> answer = memory.Ask(request);
    if (absl::IsCancelled(answer.status())) return answer.status();
    if (absl::IsOutOfRange(answer.status()) && way.has_passage) {
      return absl::OutOfRangeError(
          StrCat("a passage is too long for the prompt: leave \"passage\" out of --ways (",
                 answer.status().message(), ")"));
    }
    if (!answer.ok()) {
      return Annotate(answer.status(), StrCat("\"", question.text, "\", ", way.name));
    }
    Outcome outcome = Grade(question, answer->text);
    outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    outcome.prompt_tokens = answer->usage.prompt_tokens;
    if (!question.source.empty()) {
      const std::string& document = memory.IdOf(question.source);
      outcome.is_named = std::any_of(
          answer->sources.begin(), answer->sources.end(), [&](const memory::Passage& source) {
            return source.document == document && source.start < question.end &&
                   question.begin < source.end;
          });
    }
    if (visit) RETURN_IF_ERROR(visit(way, question, outcome));
    outcomes.push_back(std::move(outcome));
    RETURN_IF_ERROR(subject.progress.Report({.stage = StrCat("ask, ", way.name),
                                             .done = static_cast<int64_t>(outcomes.size()),
                                             .total = static_cast<int64_t>(questions.size()),
                                             .unit = "questions"}));
  }
  return outcomes;
}

Row Summarize(Row row, const Way& way, std::span<const Outcome> outcomes,
              const std::vector<std::string>& measures) {
  const auto n = static_cast<int64_t>(outcomes.size());
  const auto rate = [&](bool Outcome::*is) {
    return RateScore(
        std::count_if(outcomes.begin(), outcomes.end(), [&](const Outcome& o) { return o.*is; }),
        n);
  };
  std::vector<double> f1, seconds;
  for (const Outcome& outcome : outcomes) {
    f1.push_back(outcome.f1);
    seconds.push_back(outcome.seconds);
  }
  row.emplace_back("way", way.name);
  for (const std::string& measure : measures) {
    if (measure == "right") row.emplace_back(measure, rate(&Outcome::is_held));
    if (measure == "exact match") row.emplace_back(measure, rate(&Outcome::is_exact));
    if (measure == "F1") row.emplace_back(measure, MeanScore(f1));
    if (measure == "named" && way.has_memory) {
      row.emplace_back(measure, rate(&Outcome::is_named));
    }
  }
  row.emplace_back("seconds", Median(seconds));
  return row;
}

absl::Status Tally::Ask(const TestMemory& memory, std::span<const Question> questions) {
  for (size_t i = 0; i < ways_.size(); ++i) {
    ASSIGN_OR_RETURN(std::vector<Outcome> more,
                     AskAll(subject_, memory, questions, ways_[i], visit_));
    std::move(more.begin(), more.end(), std::back_inserter(outcomes_[i]));
  }
  return absl::OkStatus();
}

void Tally::AddRows(const TestMemory& memory, const std::vector<std::string>& measures,
                    Report* report) const {
  for (size_t i = 0; i < ways_.size(); ++i) {
    report->rows.push_back(Summarize({{"tokens", static_cast<int64_t>(memory.n_tokens())}},
                                     ways_[i], outcomes_[i], measures));
  }
}

}  // namespace fovea::eval
