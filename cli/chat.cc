// fovea chat: a conversation over a memory, a message a line.
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

namespace fovea::cli {
namespace {

struct ChatArguments {
  std::string memory;
  QuestionOptions question_options;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

absl::Status AnswerMessage(answer::Request request, const ChatArguments& arguments,
                           const Session& session) {
  absl::Status written;
  if (!arguments.output.json) {
    request.stream = [&written](std::string_view piece) {
      written = WriteOutput(Printable(piece));
      return written.ok();
    };
  }
  const absl::StatusOr<answer::Answer> answer = session.answerer->Run(request);
  RETURN_IF_ERROR(written);
  if (!answer.ok()) {
    // The next message may do better.
    std::fprintf(stderr, "fovea: %s\n", Printable(ToStd(answer.status().message())).c_str());
    if (!arguments.output.json) return absl::OkStatus();
    return WriteOutput(
        JsonLine(FailedQuestionJson(request.messages.back().content, answer.status())));
  }
  if (arguments.output.json)
    return WriteOutput(JsonLine(ToJson(*answer, session.open_ms, session.notes)));
  RETURN_IF_ERROR(WriteOutput(StrCat("\n", FormatSources(*answer), "\n")));
  PrintNotes(arguments.output, *answer);
  return absl::OkStatus();
}

absl::StatusOr<ExitCode> RunChat(const ChatArguments& arguments) {
  ASSIGN_OR_RETURN(answer::Request request, ToRequest(arguments.question_options));
  ASSIGN_OR_RETURN(const Session session,
                   OpenSession(arguments.memory, arguments.model, arguments.compute));
  answer::Conversation conversation;
  request.conversation = &conversation;
  request.progress = Progress(nullptr, InterruptFlag());
  if (request.options.use_memory)
    PrintHint(arguments.output, session.answerer->Hint(request.options));
  const bool prompts = isatty(STDIN_FILENO) != 0 && !arguments.output.quiet;
  if (prompts) {
    std::fputs("A message a line. /reset forgets the conversation, /quit ends it.\n", stderr);
  }
  LineReader lines(STDIN_FILENO);
  std::string message;
  while (true) {
    if (prompts) std::fputs("> ", stderr);
    const absl::StatusOr<bool> more = lines.Next(&message);
    if (absl::IsCancelled(more.status())) {
      if (prompts) std::fputs("\n", stderr);
      return kDone;
    }
    RETURN_IF_ERROR(more.status());
    if (!*more || message == "/quit" || message == "/exit") return kDone;
    if (message == "/reset") {
      conversation.Clear();
      continue;
    }
    if (message.find_first_not_of(" \t\r") == std::string::npos) continue;
    RETURN_IF_ERROR(AnswerMessage(WithQuestion(request, message), arguments, session));
    ClearInterrupt();  // Ctrl-C stopped one answer, not the conversation
  }
}

}  // namespace

void AddChat(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand("chat", "A conversation over a memory");
  const auto arguments = std::make_shared<ChatArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  AddQuestionOptions(command, &arguments->question_options);
  AddMovedModelOptions(command, &arguments->model);
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea chat --memory notes --collection letters");
  command->callback([arguments, run] { *run = [arguments] { return RunChat(*arguments); }; });
}

}  // namespace fovea::cli
