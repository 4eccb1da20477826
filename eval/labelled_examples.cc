#include "eval/labelled_examples.h"

#include <algorithm>
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

constexpr char kWanted[] =
    "lines of a label, a space and a question, or JSON objects with question and answers (or "
    "label)";

absl::StatusOr<LabelledExample> FromJson(const json& record) {
  try {
    LabelledExample example;
    example.question = record.at("question").get<std::string>();
    example.is_label = record.contains("label");
    if (example.is_label) {
      example.answers = {record.at("label").get<std::string>()};
    } else {
      example.answers = record.at("answers").get<std::vector<std::string>>();
    }
    return example;
  } catch (const json::exception& error) {
    return JsonError(kWanted, error);
  }
}

absl::StatusOr<LabelledExample> FromLine(const std::string& line) {
  if (line.front() == '{') return FromJson(json::parse(line, nullptr, /*allow_exceptions=*/false));
  const size_t space = line.find(' ');
  if (space == 0 || space == std::string::npos) {
    return absl::InvalidArgumentError(StrCat("want ", kWanted));
  }
  return LabelledExample{
      .question = line.substr(space + 1), .answers = {line.substr(0, space)}, .is_label = true};
}

// An example as it stands in the memory and in prompts; without its answer, the question.
std::string Written(const LabelledExample& example, bool has_answer) {
  return StrCat("Question: ", example.question, example.is_label ? "\nType:" : "\nAnswer:",
                has_answer ? StrCat(" ", example.answers.front(), "\n\n") : std::string());
}

}  // namespace

absl::StatusOr<std::vector<LabelledExample>> ReadExamples(const std::filesystem::path& file) {
  if (file.empty()) {
    return absl::InvalidArgumentError(
        StrCat("no file: pass --examples FILE and --questions FILE, ", kWanted));
  }
  std::vector<LabelledExample> examples;
  bool is_list = false;  // one JSON list, over any number of lines
  RETURN_IF_ERROR(texts::ReadLines(file, [&](const std::string& line) -> absl::StatusOr<bool> {
    is_list = examples.empty() && line.front() == '[';
    if (is_list) return false;
    const bool has_return = line.back() == '\r';
    ASSIGN_OR_RETURN(LabelledExample example,
                     FromLine(line.substr(0, line.size() - (has_return ? 1 : 0))));
    examples.push_back(std::move(example));
    return true;
  }));
  if (is_list) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file));
    const json list = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
    if (!list.is_array()) {
      return absl::InvalidArgumentError(StrCat(file, ": not a JSON list: want ", kWanted));
    }
    for (const json& record : list) {
      absl::StatusOr<LabelledExample> example = FromJson(record);
      if (!example.ok()) return Annotate(example.status(), file.native());
      examples.push_back(*std::move(example));
    }
  }
  std::erase_if(examples, [](const LabelledExample& example) {
    return example.answers.empty() || example.answers.front().empty();
  });
  if (examples.empty()) {
    return absl::InvalidArgumentError(StrCat(file, ": holds no examples: want ", kWanted));
  }
  return examples;
}

absl::StatusOr<Report> RunExamples(const Subject& subject, const ExamplesOptions& options) {
  const CommonOptions& common = options.common;
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  for (const Way& way : ways) {
    if (!way.has_passage) continue;
    return absl::InvalidArgumentError(
        "no passage holds the answer to an example: leave \"passage\" out of --ways");
  }
  ASSIGN_OR_RETURN(std::vector<LabelledExample> examples, ReadExamples(options.examples));
  ASSIGN_OR_RETURN(std::vector<LabelledExample> asked, ReadExamples(options.questions));
  texts::Random random(common.seed, 0);
  random.Shuffle(&examples);
  random.Shuffle(&asked);
  if (static_cast<int64_t>(asked.size()) > options.n_questions) {
    asked.resize(static_cast<size_t>(options.n_questions));
  }
  const int64_t most = options.n_examples.empty() ? 0
                                                  : *std::max_element(options.n_examples.begin(),
                                                                      options.n_examples.end());
  if (options.n_local + most > static_cast<int64_t>(examples.size())) {
    return absl::InvalidArgumentError(StrCat(options.examples, ": holds ", examples.size(),
                                             " examples, and ", options.n_local, " + ", most,
                                             " are wanted: pass a smaller --count or --local"));
  }
  std::string local;
  for (int64_t i = 0; i < options.n_local; ++i) {
    local += Written(examples[static_cast<size_t>(i)], true);
  }
  Report report{.evaluation = "icl",
                .settings = {{"questions", static_cast<int64_t>(asked.size())},
                             {"local examples", options.n_local}},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "examples", .y = "exact match", .series = "way"}};
  for (const int64_t n_examples : options.n_examples) {
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, StrCat("icl-", n_examples)));
    std::string text;
    for (int64_t i = 0; i < n_examples; ++i) {
      text += Written(examples[static_cast<size_t>(options.n_local + i)], true);
    }
    const Document document{.source = "examples", .text = text};
    if (n_examples > 0) {
      RETURN_IF_ERROR(memory->Fill({&document, 1}));
      report.text_hashes.emplace_back(StrCat(n_examples), memory->TextHash());
    }
    for (const Way& way : ways) {
      // Without examples there is nothing in the memory to ask, with them no other way is of use.
      if (way.has_memory == (n_examples == 0)) continue;
      const bool finds_examples = way.options.reread.value_or(0) > 0;
      std::vector<Question> questions;
      questions.reserve(asked.size());
      for (const LabelledExample& example : asked) {
        questions.push_back(
            {.text = StrCat(finds_examples ? std::string() : local, Written(example, false)),
             .answers = example.answers,
             .passage = "",
             .raw = true,
             .judged = AnswerPart::kFirstLine});
      }
      ASSIGN_OR_RETURN(const std::vector<Outcome> outcomes,
                       AskAll(subject, *memory, questions, way, common.visit));
      report.rows.push_back(
          Summarize({{"examples", n_examples},
                     {"tokens", static_cast<int64_t>(n_examples > 0 ? memory->n_tokens() : 0)}},
                    way, outcomes, {"exact match", "right"}));
    }
  }
  return report;
}

}  // namespace fovea::eval
