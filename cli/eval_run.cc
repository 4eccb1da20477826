#include "cli/eval_run.h"

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "cli/eval_output.h"
#include "cli/eval_workplace.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "eval/plot.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

// What a shell's sha256sum prints, too.
absl::StatusOr<std::string> HashOfFile(const fs::path& path) {
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  return Sha256Hex(file->bytes());
}

// Memories of one model in a named folder are not another's.
std::string FolderOf(const model::Transformer& model) {
  constexpr size_t kDigits = 12;
  return model.fingerprint().substr(0, kDigits);
}

}  // namespace

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

absl::StatusOr<ExitCode> RunEval(const Evaluate& evaluate, EvalArguments* arguments) {
  const double begin_ms = UptimeMs();
  if (!arguments->plot.empty()) {
    RETURN_IF_ERROR(eval::FindGnuplot());
    const std::filesystem::path plot(arguments->plot);
    std::error_code error;
    if (std::filesystem::is_directory(plot, error) ||
        (plot.has_parent_path() && !std::filesystem::is_directory(plot.parent_path(), error))) {
      return absl::InvalidArgumentError(
          StrCat("--plot ", plot, ": want a file in a folder that is there"));
    }
  }
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
  std::string adapter_hash;  // before what takes long
  if (choice.adapter.has_value()) {
    ASSIGN_OR_RETURN(adapter_hash, HashOfFile(*choice.adapter / "adapter_model.safetensors"));
  }
  ASSIGN_OR_RETURN(const auto place, EvalWorkplace::Create(arguments->folder));
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
  const auto draw = [&]() -> absl::StatusOr<ExitCode> {
    if (arguments->plot.empty()) return kDone;
    RETURN_IF_ERROR(eval::DrawPlot(*report, arguments->plot, Progress()));
    return kDone;
  };
  // What was measured is told, whatever comes of the picture.
  if (!arguments->output.json) {
    RETURN_IF_ERROR(WriteOutput(FormatReport(*report)));
    return draw();
  }
  Json json = ToJson(*report);
  json["command"] = CommandLine();
  json["seed"] = arguments->common.seed;
  json["model"] = choice.model_name;
  json["adapter"] = choice.adapter_name;
  if (!adapter_hash.empty()) json["adapter_sha256"] = adapter_hash;
  json["fingerprint"] = model->fingerprint();
  json["device"] = arguments->compute.device;
  json["data"] = Json::array();
  for (const fs::path& file : arguments->data) {
    ASSIGN_OR_RETURN(const std::string hash, HashOfFile(file));
    json["data"].push_back({{"path", file.native()}, {"sha256", hash}});
  }
  json["total_seconds"] = std::round(UptimeMs() - begin_ms) / 1000.0;
  RETURN_IF_ERROR(WriteOutput(JsonLine(json)));
  return draw();
}

}  // namespace fovea::cli
