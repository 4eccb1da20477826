// fovea tokenize: lines of text → lists of token ids, and back.
#include <unistd.h>

#include <cstdio>
#include <limits>
#include <memory>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/streams.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights/checkpoint.h"
#include "model_home/model_home.h"

namespace fovea::cli {
namespace {

struct TokenizeArguments {
  std::string model;
  bool decode = false;
  bool special = false;
};

absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& line) {
  const Json list = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) return absl::InvalidArgumentError("want a JSON list of ids, as [1, 2]");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(StrCat("want ids, found ", id.dump()));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<ExitCode> RunTokenize(const TokenizeArguments& arguments) {
  ASSIGN_OR_RETURN(const auto path, model_home::FindModel(model_home::ModelHome::FromEnvironment(),
                                                          arguments.model));
  ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(path));
  ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Create(checkpoint->tokenizer_spec()));
  LineReader lines(STDIN_FILENO);
  std::string line;
  for (int64_t number = 1;; ++number) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return kDone;
    if (arguments.decode) {
      const absl::StatusOr<std::vector<int32_t>> ids = ParseIds(line);
      if (!ids.ok()) return Annotate(ids.status(), StrCat("standard input, line ", number));
      RETURN_IF_ERROR(WriteOutput(tokenizer->Decode(*ids, arguments.special) + "\n"));
    } else {
      const model::Encoding encoding = tokenizer->Encode(line, arguments.special);
      RETURN_IF_ERROR(WriteOutput(JsonLine(encoding.ids)));
    }
  }
}

}  // namespace

void AddTokenize(CLI::App& app, Run* run) {
  CLI::App* command =
      app.add_subcommand("tokenize", "Lines of standard input to lists of token ids, and back");
  const auto arguments = std::make_shared<TokenizeArguments>();
  command->add_option("--model", arguments->model, "A GGUF file, a safetensors folder, or a name")
      ->required()
      ->envname("FOVEA_MODEL")
      ->type_name("PATH|NAME");
  command->add_flag("--decode", arguments->decode, "Lists of ids to text");
  command->add_flag("--special", arguments->special,
                    "Special tokens in the text are special; with --decode: are written");
  SetExample(command, "echo 'Hello there' | fovea tokenize --model smollm2");
  command->callback([arguments, run] { *run = [arguments] { return RunTokenize(*arguments); }; });
}

}  // namespace fovea::cli
