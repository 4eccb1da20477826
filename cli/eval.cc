// fovea eval: measures a model with its adapter and memory, in memories that it makes itself.
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/cord.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/command.h"
#include "cli/eval_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "eval/passkey.h"
#include "eval/planted_facts.h"
#include "eval/plot.h"
#include "eval/questions.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kMostCount = 1 << 30;

struct EvalArguments {
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
  std::string folder;  // empty: a temporary one
  int window = 0;
  std::string index;
  std::string plot;
  std::string answers;
  std::vector<std::string> tokens;
  eval::CommonOptions common;
  eval::PasskeyOptions passkey;
  eval::FactsOptions facts;
  eval::QuestionsOptions questions;
  eval::NaturalOptions natural;
  std::vector<fs::path> data;  // files that were read
};

using Evaluate = std::function<absl::StatusOr<eval::Report>(const eval::Subject&, EvalArguments*)>;

// "65536", "64k", "1M": tokens; k is 1024.
absl::StatusOr<int64_t> ParseTokens(const std::string& text) {
  constexpr int64_t kMostTokens = int64_t{1} << 36;
  int64_t n = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, n);
  const std::string_view unit(parsed, static_cast<size_t>(end - parsed));
  const int shift = unit == "k" || unit == "K" ? 10 : unit == "M" ? 20 : 0;
  if (error != std::errc() || (!unit.empty() && shift == 0) || n < 0 ||
      n > (kMostTokens >> shift)) {
    return absl::InvalidArgumentError(
        StrCat("\"", text, "\": want a number of tokens, such as 65536, 64k or 1M (k is 1,024)"));
  }
  return n << shift;
}

// What a shell's sha256sum prints, too.
absl::StatusOr<std::string> HashOfFile(const fs::path& path) {
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  return Sha256Hex(file->bytes());
}

// A folder for the memories, that goes with this object unless the user named it.
class Workplace {
 public:
  static absl::StatusOr<std::unique_ptr<Workplace>> Create(const std::string& named) {
    auto place = std::make_unique<Workplace>();
    if (!named.empty()) {
      place->path_ = named;
      RETURN_IF_ERROR(CreateDirectories(named));
      return place;
    }
    std::error_code error;
    std::string name = (fs::temp_directory_path(error) / "fovea-eval-XXXXXX").native();
    if (error || mkdtemp(name.data()) == nullptr) {
      return Annotate(ErrnoToStatus(error ? error.value() : errno, "create a folder", name),
                      "--folder DIR names another place for the memories");
    }
    place->path_ = name;
    place->is_temporary_ = true;
    return place;
  }
  ~Workplace() {
    std::error_code error;
    if (is_temporary_) fs::remove_all(path_, error);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  bool is_temporary_ = false;
};

// Memories of one model in a named folder are not another's.
std::string FolderOf(const model::Transformer& model) {
  constexpr size_t kDigits = 12;
  return model.fingerprint().substr(0, kDigits);
}

absl::StatusOr<ExitCode> RunEval(const Evaluate& evaluate, EvalArguments* arguments) {
  const double begin_ms = UptimeMs();
  if (!arguments->plot.empty()) RETURN_IF_ERROR(eval::FindGnuplot());
  for (const std::string& text : arguments->tokens) {
    ASSIGN_OR_RETURN(const int64_t tokens, ParseTokens(text));
    arguments->common.tokens.push_back(tokens);
  }
  std::ofstream answers;
  if (!arguments->answers.empty()) {
    answers.open(arguments->answers);
    arguments->common.visit = [&](const eval::Way& way, const eval::Question& question,
                                  const eval::Outcome& outcome) {
      answers << JsonLine(ToJson(way, question, outcome)) << std::flush;
      return answers ? absl::OkStatus() : ErrnoToStatus(errno, "write", arguments->answers);
    };
    if (!answers) return ErrnoToStatus(errno, "write", arguments->answers);
  }
  ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments->compute));
  ASSIGN_OR_RETURN(const model_home::ModelChoice choice, ChooseNewModel(arguments->model));
  PrintAdapterWarning(choice);
  ASSIGN_OR_RETURN(const auto model, LoadModel(device.get(), choice));
  ASSIGN_OR_RETURN(const auto place, Workplace::Create(arguments->folder));
  ProgressBar bar(ProgressBar::ChooseStyle(arguments->output.quiet));
  const eval::Subject subject{.device = device.get(),
                              .model = model.get(),
                              .model_name = choice.model_name,
                              .adapter_name = choice.adapter_name,
                              .folder = place->path() / FolderOf(*model),
                              .window = arguments->window,
                              .index_spec = arguments->index,
                              .progress = bar.progress()};
  RETURN_IF_ERROR(CreateDirectories(subject.folder));
  const absl::StatusOr<eval::Report> report = evaluate(subject, arguments);
  bar.Clear();
  if (absl::IsCancelled(report.status())) {
    std::fprintf(stderr, "fovea: interrupted: there is no result\n");
    return kFailed;
  }
  RETURN_IF_ERROR(report.status());
  if (!arguments->plot.empty()) {
    RETURN_IF_ERROR(eval::DrawPlot(*report, arguments->plot, Progress()));
  }
  if (!arguments->output.json) {
    RETURN_IF_ERROR(WriteOutput(FormatReport(*report)));
    return kDone;
  }
  Json json = ToJson(*report);
  json["command"] = CommandLine();
  json["seed"] = arguments->common.seed;
  json["model"] = choice.model_name;
  json["adapter"] = choice.adapter_name;
  if (choice.adapter.has_value()) {
    ASSIGN_OR_RETURN(json["adapter_sha256"],
                     HashOfFile(*choice.adapter / "adapter_model.safetensors"));
  }
  json["fingerprint"] = model->fingerprint();
  json["device"] = arguments->compute.device;
  json["data"] = Json::array();
  for (const fs::path& file : arguments->data) {
    ASSIGN_OR_RETURN(const std::string hash, HashOfFile(file));
    json["data"].push_back({{"path", file.native()}, {"sha256", hash}});
  }
  json["total_seconds"] = std::round(UptimeMs() - begin_ms) / 1000.0;
  RETURN_IF_ERROR(WriteOutput(JsonLine(json)));
  return kDone;
}

// --- Options that several evaluations have ---

CLI::Option* AddCount(CLI::App* command, const std::string& name, int64_t* count,
                      const std::string& description, int64_t least = 1) {
  return command->add_option(name, *count, description)
      ->check(CLI::Range(least, static_cast<int64_t>(kMostCount)))
      ->capture_default_str()
      ->type_name("N");
}

void AddSizes(CLI::App* command, EvalArguments* arguments, const std::string& sizes,
              const std::string& description) {
  arguments->tokens = {sizes};
  command->add_option("--tokens", arguments->tokens, StrCat(description, " (default: ", sizes, ")"))
      ->delimiter(',')
      ->check([](const std::string& text) {
        const absl::StatusOr<int64_t> tokens = ParseTokens(text);
        return tokens.ok() ? std::string() : std::string(tokens.status().message());
      })
      ->type_name("N,…");
}

void AddFiles(CLI::App* command, const std::string& name, std::vector<fs::path>* files,
              const std::string& description) {
  command
      ->add_option_function<std::vector<std::string>>(
          name,
          [files](const std::vector<std::string>& names) {
            files->assign(names.begin(), names.end());
          },
          description)
      ->type_name("FILE…");
}

void AddModes(CLI::App* command, EvalArguments* arguments) {
  command
      ->add_option("--mode", arguments->common.ways.modes,
                   "Searches of the memory: approximate, exact, dense")
      ->delimiter(',')
      ->check(CLI::IsMember({"approximate", "exact", "dense"}))
      ->type_name("MODE,…")
      ->capture_default_str();
  command
      ->add_option("--top-k", arguments->common.ways.top_k,
                   "Keys kept per query head (default: the model's)")
      ->check(CLI::Range(1, kMostCount))
      ->type_name("N");
}

void AddWays(CLI::App* command, EvalArguments* arguments, const std::vector<std::string>& ways,
             int max_tokens) {
  eval::WayOptions& options = arguments->common.ways;
  options.ways = ways;
  options.max_tokens = max_tokens;
  command
      ->add_option("--ways", options.ways,
                   "memory (by each --mode), passage (the right one in the prompt), bm25[:N], "
                   "attention[:N], both[:N] (N passages found, memory off), default, closed")
      ->delimiter(',')
      ->check([](const std::string& name) {
        const absl::Status status = eval::CheckWayName(name);
        return status.ok() ? std::string() : std::string(status.message());
      })
      ->type_name("WAY,…")
      ->capture_default_str();
  AddModes(command, arguments);
  command->add_option("--max-tokens", options.max_tokens, "Longest answer")
      ->check(CLI::Range(1, kMostCount))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--answers", arguments->answers,
                   "Write each question, answer and judgement there, one JSON object a line")
      ->type_name("FILE");
}

// The subcommand of an evaluation; what it alone has is added to it.
CLI::App* AddEvaluation(CLI::App* parent, const std::string& name, const std::string& description,
                        const std::shared_ptr<EvalArguments>& arguments, Run* run,
                        Evaluate evaluate, const std::string& example) {
  CLI::App* command = parent->add_subcommand(name, description);
  arguments->common.ways.modes = {"approximate"};
  AddModelOptions(command, &arguments->model);
  command
      ->add_option("--folder", arguments->folder,
                   "Where memories are made, and stay for the next run (default: a temporary "
                   "folder; a memory takes about 2.5 KB a token of the default model)")
      ->type_name("DIR");
  command->add_option("--window", arguments->window, "Tokens encoded together")
      ->check(CLI::Range(1, kMostCount))
      ->type_name("N");
  command->add_option("--index", arguments->index, "Index of the memories (default: auto)")
      ->type_name("SPEC");
  command->add_option("--seed", arguments->common.seed, "Another sample")
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--plot", arguments->plot, "Draw the table there (SVG, with gnuplot)")
      ->type_name("FILE.svg");
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, example);
  command->callback([arguments, run, evaluate = std::move(evaluate)] {
    *run = [arguments, evaluate] { return RunEval(evaluate, arguments.get()); };
  });
  return command;
}

void Remember(const std::vector<fs::path>& files, EvalArguments* arguments) {
  arguments->data.insert(arguments->data.end(), files.begin(), files.end());
}

void AddPasskey(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = AddEvaluation(
      parent, "passkey", "A pass key in repeated filler: how often it is found", arguments, run,
      [](const eval::Subject& subject, EvalArguments* a) {
        a->passkey.common = a->common;
        return eval::RunPasskey(subject, a->passkey);
      },
      "fovea eval passkey --tokens 32k,256k --trials 20");
  AddSizes(command, arguments.get(), "32k", "Sizes of the memory");
  AddCount(command, "--trials", &arguments->passkey.n_trials, "Keys of each size");
  constexpr int kKeyTokens = 8;
  AddWays(command, arguments.get(), {"memory"}, kKeyTokens);
}

void AddFacts(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = AddEvaluation(
      parent, "facts", "Facts planted in books: how many are answered, and their passages named",
      arguments, run,
      [](const eval::Subject& subject, EvalArguments* a) {
        a->facts.common = a->common;
        Remember(a->common.texts, a);
        return eval::RunFacts(subject, a->facts);
      },
      "fovea eval facts --texts books.jsonl.zst --tokens 64k --facts 64 --mode exact,dense");
  AddSizes(command, arguments.get(), "64k", "Sizes of the memory");
  AddFiles(command, "--texts", &arguments->common.texts,
           "Books: JSON records with text, a line each");
  AddCount(command, "--facts", &arguments->facts.n_facts, "Facts in a memory; 1: a single one");
  AddCount(command, "--look-alikes", &arguments->facts.n_lookalikes,
           "Beside each: others that differ in one of the words asked for", 0);
  AddCount(command, "--trials", &arguments->facts.n_trials,
           "Memories, one after another, each with facts of its own");
  constexpr int kFactTokens = 24;
  AddWays(command, arguments.get(), {"memory"}, kFactTokens);
}

constexpr int kAnswerTokens = 40;
const std::vector<std::string> kQuestionWays = {"closed", "memory", "bm25", "default", "passage"};

void AddQuestions(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = AddEvaluation(
      parent, "questions", "Questions on passages that lie in one memory: F1 by way to answer",
      arguments, run,
      [](const eval::Subject& subject, EvalArguments* a) {
        a->questions.common = a->common;
        Remember(a->questions.questions, a);
        Remember(a->common.texts, a);
        return eval::RunQuestions(subject, a->questions);
      },
      "fovea eval questions --questions questions.jsonl --limit 100");
  AddFiles(command, "--questions", &arguments->questions.questions,
           "JSON records with context, question and answers, a line each");
  AddCount(command, "--limit", &arguments->questions.n_questions, "Questions asked");
  AddCount(command, "--passages", &arguments->questions.n_passages,
           "Passages in the memory, if more than those that are asked about", 0);
  AddSizes(command, arguments.get(), "0", "Other text beside them, in tokens of --texts");
  AddFiles(command, "--texts", &arguments->common.texts, "Other text: JSON records with text");
  AddWays(command, arguments.get(), kQuestionWays, kAnswerTokens);
}

void AddNatural(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = AddEvaluation(
      parent, "natural", "Your own documents and questions: a folder with a questions.jsonl",
      arguments, run,
      [](const eval::Subject& subject, EvalArguments* a) {
        a->natural.common = a->common;
        Remember({a->natural.folder / "questions.jsonl"}, a);
        return eval::RunNatural(subject, a->natural);
      },
      "fovea eval natural --documents notes --ways closed,bm25,default");
  command
      ->add_option_function<std::string>(
          "--documents",
          [arguments](const std::string& folder) { arguments->natural.folder = folder; },
          "The folder; questions.jsonl in it has question, answers, document (a file's name) and "
          "quote (what of it holds the answer), a JSON record a line")
      ->required()
      ->type_name("DIR");
  AddCount(command, "--limit", &arguments->natural.n_questions, "Only the first questions", 0);
  AddWays(command, arguments.get(), kQuestionWays, kAnswerTokens);
}

}  // namespace

void AddEval(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "eval", "Measure a model with its memory: pass keys, facts, questions, and more");
  command->require_subcommand(1);
  AddPasskey(command, run);
  AddFacts(command, run);
  AddQuestions(command, run);
  AddNatural(command, run);
  SetExample(command,
             "fovea eval passkey --tokens 32k\n"
             "  fovea eval facts --texts books.jsonl.zst --tokens 64k --json\n"
             "  fovea eval questions --questions questions.jsonl --plot f1.svg");
}

}  // namespace fovea::cli
