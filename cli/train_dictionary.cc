// fovea train dictionary: a model of its own for the paper's synthetic task.
#include <memory>

#include "absl/strings/str_format.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/train_options.h"
#include "train/dictionary_batches.h"
#include "train/dictionary_model.h"

namespace fovea::cli {
namespace {

struct DictionaryArguments {
  std::string folder;
  std::string device = "cpu";
  std::string precision = "auto";
  std::string contexts = "1:0.08,4:0.1,16:0.12,64:0.15,128";
  int mem_layer = 7;
  train::DictionaryModelShape shape;
  train::DictionaryOptions batch;
  train::TrainOptions train;
  OutputOptions output;
};

absl::StatusOr<ExitCode> RunTrainDictionary(DictionaryArguments* a) {
  train::TrainOptions& train = a->train;
  train::TrainableOptions options;
  options.update = train::TrainableOptions::Update::kScratch;
  options.mem_layers = {a->mem_layer};
  options.mem_positionals = false;
  options.trains_key_gain = false;
  options.seed = a->batch.seed;
  ASSIGN_OR_RETURN(options.device, ParseTrainingDevice(a->device));
  ASSIGN_OR_RETURN(options.type, ParsePrecision(a->precision, options.device));
  // Rotations and kernels take heads of such sizes.
  constexpr int64_t kHeadStep = 8;
  if (a->shape.hidden_size % (a->shape.n_heads * kHeadStep) != 0) {
    return absl::InvalidArgumentError(StrCat("--width ", a->shape.hidden_size, " in ",
                                             a->shape.n_heads, " heads: want heads of ", kHeadStep,
                                             ", ", 2 * kHeadStep, ", … numbers"));
  }
  ASSIGN_OR_RETURN(train.contexts, train::ContextSchedule::Parse(a->contexts));
  ASSIGN_OR_RETURN(const auto batches, train::DictionaryBatches::Create(a->batch));
  const model::ModelConfig config = train::DictionaryModelConfig(a->shape);
  ASSIGN_OR_RETURN(const auto model, train::TrainableModel::Create(config, options));
  train.folder = a->folder;
  train.local_share = 0.0;
  train.mass_weight = 0.0;
  RETURN_IF_ERROR(
      KeepConfiguration(train, *batches,
                        {{"task", "dictionary"},
                         {"layers", a->shape.n_layers},
                         {"width", a->shape.hidden_size},
                         {"heads", a->shape.n_heads},
                         {"mlp", a->shape.intermediate_size},
                         {"mem_layer", a->mem_layer},
                         {"precision", options.type == torch::kBFloat16 ? "bfloat16" : "float32"},
                         {"steps", train.n_steps},
                         {"seconds", train.n_seconds},
                         {"lr", train.learning_rate.peak},
                         {"warmup", train.learning_rate.n_warmup},
                         {"batch", a->batch.n_entries},
                         {"contexts", a->contexts},
                         {"short_steps", a->batch.n_short_steps},
                         {"look_alike_share", a->batch.look_alike_share},
                         {"seed", a->batch.seed}}));
  train::AdapterDescription description;
  description.window = static_cast<int>(a->batch.n_records * texts::kRecordSymbols);
  // The paper's number of keys.
  description.top_k = 128;
  const auto write =
      [&](const train::TrainableModel& trained,
          const std::filesystem::path& folder) -> absl::StatusOr<std::filesystem::path> {
    RETURN_IF_ERROR(train::WriteModel(trained, train::DictionaryModelFiles(config), description,
                                      folder / "model"));
    return folder / "model";
  };
  ProgressBar bar(ProgressBar::ChooseStyle(a->output.quiet));
  return RunTraining(model.get(), *batches, train, write, "model", a->output, &bar);
}

}  // namespace

void AddTrainDictionary(CLI::App& app, Run* run) {
  const auto a = std::make_shared<DictionaryArguments>();
  a->train.learning_rate = {.peak = 1e-3, .n_warmup = 500, .last_share = 0.02};
  CLI::App* command = app.add_subcommand(
      "dictionary",
      "A model from nothing that looks up definitions in a memory (the paper's synthetic task)");
  command->option_defaults()->always_capture_default();
  command->add_option("--out", a->folder, "The run's folder: metrics, checkpoint, model")
      ->required()
      ->type_name("DIR");
  command->add_option("--device", a->device, "cpu or cuda[:N]");
  command->add_option("--precision", a->precision, "auto (bfloat16 on a GPU), float32 or bfloat16");
  const auto add_count = [&](const char* name, int64_t* count, int64_t least,
                             const char* description, int64_t most = int64_t{1} << 30) {
    command->add_option(name, *count, description)->check(CLI::Range(least, most))->type_name("N");
  };
  add_count("--steps", &a->train.n_steps, 1, "Length of the run; a run of steps resumes exactly");
  command->add_option("--seconds", a->train.n_seconds, "Length of the run, in time")
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--lr", a->train.learning_rate.peak, "Highest learning rate")
      ->check(CLI::Range(1e-12, 10.0));
  add_count("--warmup", &a->train.learning_rate.n_warmup, 0, "Steps up to it");
  add_count("--layers", &a->shape.n_layers, 1, "Of the model", 128);
  add_count("--width", &a->shape.hidden_size, 8, "Of its states", 4096);
  add_count("--heads", &a->shape.n_heads, 1, "Of its attention", 128);
  add_count("--mlp", &a->shape.intermediate_size, 2, "Of its MLPs", 16384);
  command->add_option("--mem-layer", a->mem_layer, "The memory layer, counted from 0")
      ->type_name("N");
  add_count("--batch", &a->batch.n_entries, 1, "Contexts of 25 definitions of a step", 65536);
  command->add_option("--contexts", a->contexts, "Contexts that a sequence sees, along the run");
  add_count("--short-steps", &a->batch.n_short_steps, 0, "First steps, with short contexts");
  command
      ->add_option("--look-alikes", a->batch.look_alike_share,
                   "Share of the keys that differ from others in one symbol")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--seed", a->batch.seed, "Another run");
  add_count("--log-every", &a->train.log_every, 1, "Steps between lines of metrics");
  command
      ->add_option("--checkpoint-every", a->train.checkpoint_every_s, "Seconds between checkpoints")
      ->check(CLI::Range(0.0, 1e9));
  command->add_flag("--resume", a->train.resumes, "Go on from the folder's checkpoint");
  AddOutputOptions(command, &a->output);
  SetExample(command, "fovea train dictionary --out run --device cuda --seconds 600");
  command->callback([a, run] { *run = [a] { return RunTrainDictionary(a.get()); }; });
}

}  // namespace fovea::cli
