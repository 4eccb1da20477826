// fovea model: what a model's files hold, which models are there, and getting one.
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "model/weights/adapter.h"
#include "model/weights/adapter_base.h"
#include "model/weights/checkpoint.h"
#include "model_home/model_home.h"
#include "model_home/model_pull.h"

namespace fovea::cli {
namespace {

struct ModelArguments {
  std::string model;
  std::optional<std::string> adapter;
  bool tensors = false;
  OutputOptions output;
};

absl::StatusOr<ExitCode> RunInfo(const ModelArguments& arguments) {
  ASSIGN_OR_RETURN(const model_home::ModelChoice choice,
                   model_home::ChooseModel(model_home::ModelHome::FromEnvironment(),
                                           arguments.model, arguments.adapter));
  ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(choice.model));
  std::unique_ptr<model::Adapter> adapter;
  LoadedAdapter loaded;
  if (choice.adapter.has_value()) {
    ASSIGN_OR_RETURN(adapter, model::Adapter::Load(*choice.adapter, checkpoint->config()));
    loaded = {.path = choice.adapter->string(), .adapter = adapter.get()};
    const std::string warning =
        model::AdapterBaseWarning(*choice.adapter, choice.model, checkpoint->config());
    if (!warning.empty()) std::fprintf(stderr, "fovea: %s\n", Printable(warning).c_str());
  }
  const Json info = ToJson(*checkpoint, loaded);
  if (arguments.output.json) {
    RETURN_IF_ERROR(WriteOutput(JsonLine(info)));
    return kDone;
  }
  RETURN_IF_ERROR(WriteOutput(FormatModelInfo(info)));
  if (arguments.tensors) RETURN_IF_ERROR(WriteOutput(FormatTensors(info)));
  return kDone;
}

absl::StatusOr<ExitCode> RunList(const ModelArguments& arguments) {
  const model_home::ModelHome home = model_home::ModelHome::FromEnvironment();
  if (arguments.output.json) {
    Json models = Json::array();
    for (const model_home::NamedModel& model : model_home::ListModels(home))
      models.push_back(ToJson(model));
    Json adapters = Json::array();
    for (const model_home::NamedAdapter& adapter : model_home::ListAdapters(home)) {
      adapters.push_back(ToJson(adapter));
    }
    RETURN_IF_ERROR(
        WriteOutput(JsonLine({{"models", std::move(models)}, {"adapters", std::move(adapters)}})));
    return kDone;
  }
  for (const model_home::NamedModel& model : model_home::ListModels(home)) {
    const std::string state = model.installed
                                  ? StrCat(FormatBytes(model.size_bytes), "  ", model.path)
                                  : StrCat("not installed: fovea model pull ", model.name);
    RETURN_IF_ERROR(
        WriteOutput(StrCat("model    ", Printable(model.name), "  ", Printable(state), "\n")));
  }
  for (const model_home::NamedAdapter& adapter : model_home::ListAdapters(home)) {
    RETURN_IF_ERROR(WriteOutput(StrCat("adapter  ", Printable(adapter.name), "  ",
                                       Printable(adapter.path.string()), "\n")));
  }
  return kDone;
}

absl::StatusOr<ExitCode> RunPull(const ModelArguments& arguments) {
  ProgressBar bar(ProgressBar::ChooseStyle(arguments.output.quiet));
  const absl::StatusOr<std::filesystem::path> path = model_home::PullModel(
      arguments.model, model_home::ModelHome::FromEnvironment().folder, bar.progress());
  bar.Clear();
  if (absl::IsCancelled(path.status())) {
    std::fputs("fovea: interrupted; the same command starts again\n", stderr);
  }
  RETURN_IF_ERROR(path.status());
  RETURN_IF_ERROR(WriteOutput(arguments.output.json
                                  ? JsonLine({{"name", arguments.model}, {"path", path->string()}})
                                  : StrCat(Printable(path->string()), "\n")));
  return kDone;
}

}  // namespace

void AddModel(CLI::App& app, Run* run) {
  CLI::App* model = app.add_subcommand("model", "Show, list or get models");
  model->require_subcommand(1);
  SetExample(model, "fovea model pull smollm2");
  const auto arguments = std::make_shared<ModelArguments>();

  CLI::App* info = model->add_subcommand(
      "info", "Architecture, tensors, types, fingerprint, and the memory layers of the adapter");
  info->add_option("PATH", arguments->model, "A GGUF file, a safetensors folder, or a name")
      ->required();
  info->add_option("--adapter", arguments->adapter,
                   "An adapter's folder or name, or none (default: the one made for the model)")
      ->type_name("DIR|none");
  info->add_flag("--tensors", arguments->tensors, "Every tensor (always in --json)");
  AddOutputOptions(info, &arguments->output);
  SetExample(info, "fovea model info model.gguf");
  info->callback([arguments, run] { *run = [arguments] { return RunInfo(*arguments); }; });

  CLI::App* list = model->add_subcommand("list", "Models and adapters that have names");
  AddOutputOptions(list, &arguments->output);
  SetExample(list, "fovea model list");
  list->callback([arguments, run] { *run = [arguments] { return RunList(*arguments); }; });

  CLI::App* pull = model->add_subcommand("pull", "Download a model");
  pull->add_option("NAME", arguments->model, "smollm2")->required();
  AddOutputOptions(pull, &arguments->output);
  SetExample(pull, "fovea model pull smollm2");
  pull->callback([arguments, run] { *run = [arguments] { return RunPull(*arguments); }; });
}

}  // namespace fovea::cli
