// fovea ask: one question, or one a line from standard input.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "documents/utf8.h"

namespace fovea::cli {
namespace {

struct AskArguments {
  std::string memory;
  std::vector<std::string> question;  // words
  QuestionOptions question_options;
  int batch = 1;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

// The word that stands for questions on standard input.
constexpr std::string_view kFromInput = "-";

constexpr std::string_view kInterrupted = "interrupted; the answer is not complete";

absl::StatusOr<ExitCode> AskOne(answer::Request request, const AskArguments& arguments,
                                const Session& session) {
  absl::Status written;
  if (!arguments.output.json) {
    request.stream = [&written](std::string_view piece) {
      written = WriteOutput(Printable(piece));
      return written.ok();
    };
  }
  ASSIGN_OR_RETURN(const answer::Answer answer, session.answerer->Run(request));
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(WriteOutput(arguments.output.json
                                  ? JsonLine(ToJson(answer, session.open_ms, session.notes))
                                  : StrCat("\n", FormatSources(answer))));
  PrintNotes(arguments.output, answer);
  if (answer.finish_reason == "cancelled") {
    std::fprintf(stderr, "fovea: %s\n", std::string(kInterrupted).c_str());
    return kFailed;
  }
  return kDone;
}

// The questions of a list, with the numbers of their lines.
class QuestionList {
 public:
  struct Question {
    int64_t line = 0;
    std::string text;
  };

  // Waits for one question, and takes with it those that are there already, `most` in all. Empty at
  // the end. Errors are LineReader's.
  absl::StatusOr<std::vector<Question>> Next(size_t most) {
    std::vector<Question> questions;
    while (questions.size() < most && (questions.empty() || lines_.NextIsReady())) {
      std::string text;
      absl::StatusOr<bool> more = lines_.Next(&text);
      if (!more.ok() && questions.empty()) return more.status();
      if (!more.ok() || !*more) break;  // the next call meets the error
      ++line_;
      if (!text.empty() && text.back() == '\r') text.pop_back();
      // What editors put in front of a file is not part of its first question.
      if (line_ == 1 && text.starts_with(documents::kByteOrderMark)) {
        text.erase(0, documents::kByteOrderMark.size());
      }
      if (!documents::IsBlank(text)) questions.push_back({line_, std::move(text)});
    }
    return questions;
  }

 private:
  LineReader lines_{STDIN_FILENO};
  int64_t line_ = 0;
};

// A question that fails is reported, and the others go on.
absl::StatusOr<ExitCode> AskLines(const answer::Request& request, const AskArguments& arguments,
                                  const Session& session) {
  QuestionList list;
  ExitCode code = kDone;
  while (true) {
    const auto questions = list.Next(static_cast<size_t>(arguments.batch));
    if (absl::IsCancelled(questions.status())) {
      std::fputs("fovea: interrupted; the questions so far are answered\n", stderr);
      return kFailed;
    }
    RETURN_IF_ERROR(questions.status());
    if (questions->empty()) return code;
    std::vector<answer::Request> requests;
    for (const QuestionList::Question& question : *questions) {
      requests.push_back(WithQuestion(request, question.text));
    }
    const std::vector<absl::StatusOr<answer::Answer>> answers = session.answerer->RunAll(requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      const absl::StatusOr<answer::Answer>& answer = answers[i];
      const QuestionList::Question& question = (*questions)[i];
      if (!answer.ok()) {
        std::fprintf(stderr, "fovea: line %lld: %s\n", static_cast<long long>(question.line),
                     Printable(ToStd(answer.status().message())).c_str());
        // An empty result keeps results and questions in step.
        RETURN_IF_ERROR(WriteOutput(
            arguments.output.json ? JsonLine(FailedQuestionJson(question.text, answer.status()))
                                  : std::string("\n")));
        code = kFailed;
        continue;
      }
      RETURN_IF_ERROR(WriteOutput(arguments.output.json
                                      ? JsonLine(ToJson(*answer, session.open_ms, session.notes))
                                      : FormatAnswerLine(*answer)));
      // With --json they are in the result.
      if (!arguments.output.json) {
        PrintNotes(arguments.output, *answer, StrCat("line ", question.line, ": "));
      }
      if (answer->finish_reason == "cancelled") {
        std::fprintf(stderr, "fovea: %s\n", std::string(kInterrupted).c_str());
        return kFailed;
      }
    }
  }
}

absl::StatusOr<ExitCode> RunAsk(const AskArguments& arguments) {
  ASSIGN_OR_RETURN(answer::Request request, ToRequest(arguments.question_options));
  request.progress = Progress(nullptr, InterruptFlag());
  ASSIGN_OR_RETURN(const Session session,
                   OpenSession(arguments.memory, arguments.model, arguments.compute));
  if (request.options.use_memory)
    PrintHint(arguments.output, session.answerer->Hint(request.options));
  std::string question;
  for (const std::string& word : arguments.question) {
    question += StrCat(question.empty() ? "" : " ", word);
  }
  if (question == kFromInput) return AskLines(request, arguments, session);
  return AskOne(WithQuestion(request, question), arguments, session);
}

// Throws for a question beside those of standard input, which would not be read: a dash between
// words is a part of the question, at its beginning or end it is not. `has_batch`: --batch is
// given.
void CheckQuestion(const std::vector<std::string>& words, bool has_batch) {
  const bool is_list = words.size() == 1 && words.front() == kFromInput;
  if (!is_list && (words.front() == kFromInput || words.back() == kFromInput)) {
    throw CLI::ValidationError(
        "QUESTION",
        "want a question, or - alone, which reads questions from standard input, and not both; "
        "of a question that begins or ends with a dash make one argument, in quotes");
  }
  if (!is_list && has_batch) {
    throw CLI::ValidationError(
        "--batch", "goes with -, which reads questions from standard input: this is one question");
  }
}

}  // namespace

void AddAsk(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("ask", "Answer a question from a memory, with sources");
  const auto arguments = std::make_shared<AskArguments>();
  AddMemoryOption(command, &arguments->memory);
  AddQuestionOptions(command, &arguments->question_options);
  AddMovedModelOptions(command, &arguments->model);
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  command
      ->add_option("QUESTION", arguments->question,
                   "The question; -: one a line from standard input, blank lines passed over")
      ->required();
  const CLI::Option* batch =
      command
          ->add_option("--batch", arguments->batch,
                       "With -: questions that are answered together, of those that can be read "
                       "without waiting; faster in all, later each")
          ->check(CLI::Range(1, 64))
          ->capture_default_str();
  SetExample(command, "fovea ask --memory notes \"Who left the key in the attic?\"");
  command->callback([arguments, batch, run] {
    CheckQuestion(arguments->question, batch->count() > 0);
    if (arguments->memory.empty() && !arguments->question_options.no_memory) {
      throw CLI::RequiredError("--memory");
    }
    *run = [arguments] { return RunAsk(*arguments); };
  });
}

}  // namespace fovea::cli
