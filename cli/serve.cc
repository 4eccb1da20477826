// fovea serve: the options of a server.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "base/freed_memory.h"
#include "base/processors.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "serve/server.h"

namespace fovea::cli {
namespace {

struct ServeArguments {
  std::string memory;
  std::string api_key_file;
  serve::ServerOptions server;
  ModelOptions model;
  ComputeOptions compute;
  int read_seconds = 30;
};

absl::StatusOr<ExitCode> RunServe(const ServeArguments& arguments) {
  KeepLittleFreedMemory();
  serve::ServerOptions options = arguments.server;
  if (!arguments.api_key_file.empty()) options.api_key_file = arguments.api_key_file;
  options.http.read_time = std::chrono::seconds(arguments.read_seconds);
  const std::string note = ThreadsNote(arguments.compute);
  const auto say = [](const std::string& message) {
    std::fprintf(stderr, "fovea: %s\n", Printable(message).c_str());
  };
  if (!note.empty()) say(note);
  answer::FoveaOptions& fovea = options.fovea;
  fovea.memory = arguments.memory;
  fovea.model = arguments.model.model.value_or("");
  fovea.adapter = arguments.model.adapter_or_layers().value_or("");
  fovea.device = arguments.compute.device;
  fovea.gpu_memory_bytes = arguments.compute.gpu_memory_bytes;
  fovea.n_threads = std::min(arguments.compute.threads, NumProcessors());
  fovea.precision = arguments.compute.precision;
  // The address is a result: scripts wait for it.
  const auto on_ready = [&](int port) {
    const std::string& host = options.http.host;
    const bool is_v6 = host.find(':') != std::string::npos;
    WriteOutput(StrCat("http://", is_v6 ? StrCat("[", host, "]") : host, ":", port, "\n"))
        .IgnoreError();
  };
  RETURN_IF_ERROR(serve::RunServer(options, InterruptFlag(), on_ready, say));
  return kDone;
}

}  // namespace

void AddServe(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "serve", "Answer over HTTP: OpenAI's API, documents, search; prints its address when ready");
  const auto arguments = std::make_shared<ServeArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  serve::HttpServerOptions& http = arguments->server.http;
  command
      ->add_option("--host", http.host,
                   "Address to listen on; any but this machine's own needs keys")
      ->capture_default_str()
      ->type_name("ADDRESS");
  command->add_option("--port", http.port, "0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option(
          "--api-key-file", arguments->api_key_file,
          "Keys, one a line; behind a key, the collections that it is limited to: KEY a,\"b c\" "
          "(in quotes, as JSON has them, where a name has spaces, commas or a quote at its "
          "beginning)")
      ->type_name("FILE");
  serve::QuestionQueueOptions& questions = arguments->server.questions;
  command
      ->add_option("--parallel", questions.n_running,
                   "Questions that are answered at a time; their tokens are made together")
      ->check(CLI::Range(1, 256))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--queue", questions.n_waiting,
                   "Questions that may wait; more are refused (status 429)")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--max-upload", http.max_body_bytes, "Largest body of a request")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->default_str("64M")
      ->type_name("SIZE");
  command
      ->add_option(
          "--read-seconds", arguments->read_seconds,
          "Time for a request to come, beside what its bytes need at 16 KiB/s (status 408)")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str()
      ->type_name("N");
  AddModelOptions(command, &arguments->model);
  AddComputeOptions(command, &arguments->compute);
  SetExample(
      command,
      "fovea serve --memory notes\n"
      "  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", "
      "\"content\": \"Who left the key in the attic?\"}]}'");
  command->callback([arguments, run] { *run = [arguments] { return RunServe(*arguments); }; });
}

}  // namespace fovea::cli
