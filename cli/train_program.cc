// fovea-train: trains a model's memory layers. A program of its own, since LibTorch takes a second
// to load; `fovea train` starts it.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "cli/train_options.h"
#include "cli/usage_errors.h"
#include "cli/written_arguments.h"
#include "model_home/model_home.h"
#include "train/adapter_writer.h"
#include "train/batch_maker.h"
#include "train/model_writer.h"
#include "train/self_study.h"
#include "train/trainer.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

struct TrainArguments {
  std::string folder;
  std::vector<std::string> texts;
  std::string on;  // a memory
  train::SelfStudyOptions study;
  ModelOptions model;
  std::string device = "cpu";
  std::string precision = "auto";
  std::string update = "lora";
  std::string contexts = "1:0.12,4:0.24,16:0.5,32";
  std::string packing;
  std::string mass_layers;
  std::string chat;
  int64_t max_tokens = 40'000'000;
  bool has_key_gains = true;
  train::TrainableOptions trainable;
  train::BatchOptions batch;
  train::TrainOptions train;
  OutputOptions output;
};

absl::StatusOr<std::vector<int>> ParseLayers(const std::string& text) {
  std::vector<int> layers;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int layer = 0;
    if (!absl::SimpleAtoi(part, &layer)) {
      return absl::InvalidArgumentError(
          StrCat("layers \"", text, "\": want numbers such as 9,15,21"));
    }
    layers.push_back(layer);
  }
  return layers;
}

// What no run can be made of; the rest is checked where it is used.
absl::Status CheckNumbers(const TrainArguments& a) {
  struct Number {
    const char* option;
    double value, least, most;
  };
  constexpr double kAny = 1e12;
  const Number numbers[] = {
      {"--lr", a.train.learning_rate.peak, 1e-12, 10.0},
      {"--warmup", static_cast<double>(a.train.learning_rate.n_warmup), 0, kAny},
      {"--steps", static_cast<double>(a.train.n_steps), 0, kAny},
      {"--seconds", a.train.n_seconds, 0, kAny},
      {"--alpha", a.trainable.lora_alpha, 1e-6, 1e6},
      {"--local", a.train.local_share, 0, 1},
      {"--books", a.batch.book_share, 0, 1},
      {"--questions", a.batch.question_share, 0, 1},
      {"--reread", a.batch.reread_share, 0, 1},
      {"--passages", static_cast<double>(a.batch.most_passages), 1, 100},
      {"--neighbours", a.batch.neighbour_share, 0, 1},
      {"--passage-bytes", static_cast<double>(a.batch.passage_bytes), 1, 1e6},
      {"--ask", a.batch.ask_share, 0, 1},
      {"--book-asks", static_cast<double>(a.batch.book_asks), 0, 1e4},
      {"--study-questions", static_cast<double>(a.study.questions_per_passage), 1, 1000},
      {"--study-seconds", a.study.n_seconds, 0, kAny},
      {"--mass-weight", a.train.mass_weight, 0, 1e6},
      {"--distill", a.train.distill_weight, 0, 1e6},
      {"--max-tokens", static_cast<double>(a.max_tokens), 1, kAny},
      {"--log-every", static_cast<double>(a.train.log_every), 1, kAny},
      {"--checkpoint-every", a.train.checkpoint_every_s, 0, kAny},
  };
  for (const Number& number : numbers) {
    // A value that is no number is in no range.
    if (!(number.value >= number.least && number.value <= number.most)) {
      return absl::InvalidArgumentError(absl::StrFormat("%s %g: want %g to %g", number.option,
                                                        number.value, number.least, number.most));
    }
  }
  if (a.batch.book_share + a.batch.question_share > 1.0) {
    return absl::InvalidArgumentError(
        StrCat("--books ", a.batch.book_share, " and --questions ", a.batch.question_share,
               " are shares of the same sequences: want at most 1 together"));
  }
  return absl::OkStatus();
}

// What a run is made of, for people who look at it later and for --resume.
Json ConfigurationOf(const TrainArguments& a, const train::AdapterDescription& description) {
  const train::TrainableOptions& t = a.trainable;
  return {{"base_model", description.base_model},
          {"base_fingerprint", description.base_fingerprint},
          {"adapter", a.model.adapter.value_or("none")},
          {"texts", a.texts},
          {"mem_layers", t.mem_layers},
          {"mass_layers", description.reread_layers},
          {"update", a.update},
          {"rank", t.lora_rank},
          {"alpha", t.lora_alpha},
          {"key_gains", a.has_key_gains},
          {"precision", t.type == torch::kBFloat16 ? "bfloat16" : "float32"},
          {"steps", a.train.n_steps},
          {"seconds", a.train.n_seconds},
          {"lr", a.train.learning_rate.peak},
          {"warmup", a.train.learning_rate.n_warmup},
          {"batch", a.batch.n_entries},
          {"context_tokens", a.batch.context_tokens},
          {"query_tokens", a.batch.query_tokens},
          {"contexts", a.contexts},
          {"packing", a.packing},
          {"local", a.train.local_share},
          {"books", a.batch.book_share},
          {"questions", a.batch.question_share},
          {"reread", a.batch.reread_share},
          {"passages", a.batch.most_passages},
          {"neighbours", a.batch.neighbour_share},
          {"passage_bytes", a.batch.passage_bytes},
          {"ask", a.batch.ask_share},
          {"book_asks", a.batch.book_asks},
          {"on", a.on},
          {"study_questions", a.study.questions_per_passage},
          {"study_seconds", a.study.n_seconds},
          {"mass_weight", a.train.mass_weight},
          {"distill", a.train.distill_weight},
          {"chat", description.chat_template},
          {"max_tokens", a.max_tokens},
          {"seed", a.batch.seed}};
}

// The documents of the memory, and questions that its model asks itself about them, become files of
// the run's folder, which are trained on like any other; a run that goes on has them.
absl::Status StudyMemory(TrainArguments* arguments, const Progress& progress) {
  const std::filesystem::path folder = arguments->folder;
  const std::filesystem::path documents = folder / "documents.jsonl";
  const std::filesystem::path questions = folder / "study.jsonl";
  ModelOptions asked = arguments->model;
  asked.mem_layers.clear();
  {
    ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments->on, storage::OpenMode::kRead));
    ASSIGN_OR_RETURN(const model_home::ModelChoice choice,
                     model_home::RememberedModel(model_home::ModelHome::FromEnvironment(),
                                                 *memory->settings(), asked.model, asked.adapter));
    arguments->model.model = choice.model.native();
    if (choice.adapter.has_value()) arguments->model.adapter = choice.adapter->native();
  }
  arguments->texts.push_back(documents.native());
  arguments->texts.push_back(questions.native());
  if (arguments->train.resumes) return absl::OkStatus();
  RETURN_IF_ERROR(CreateDirectories(folder));
  ComputeOptions compute;
  compute.device = arguments->device;
  ASSIGN_OR_RETURN(const Session session, OpenSession(arguments->on, asked, compute));
  RETURN_IF_ERROR(train::WriteDocuments(session.memory.get(), documents, progress));
  arguments->study.seed = arguments->batch.seed;
  ASSIGN_OR_RETURN(const train::SelfStudyResult result,
                   train::WriteSelfStudy(session.memory.get(), *session.answerer, arguments->study,
                                         questions, progress));
  if (result.n_kept == 0) {
    return absl::FailedPreconditionError(
        StrCat(arguments->on, ": of ", result.n_asked, " questions that the model asked about ",
               result.n_passages, " passages none was kept: it does not ask, or says what is not ",
               "in the passage; train on questions of your own, or with an adapter that was ",
               "trained to ask (--ask)"));
  }
  if (!arguments->output.quiet && !arguments->output.json) {
    std::fprintf(stderr, "%s\n",
                 absl::StrFormat("%d passages; %d questions asked, %d kept: %s", result.n_passages,
                                 result.n_asked, result.n_kept, questions.native())
                     .c_str());
  }
  return absl::OkStatus();
}

absl::StatusOr<ExitCode> RunTrain(TrainArguments arguments) {
  if (arguments.folder.empty()) {
    return absl::InvalidArgumentError("--out is required: the run's folder");
  }
  RETURN_IF_ERROR(CheckNumbers(arguments));
  ProgressBar bar(ProgressBar::ChooseStyle(arguments.output.quiet));
  if (arguments.texts.empty() && arguments.on.empty()) {
    return absl::InvalidArgumentError(
        "no texts: name files of records, or a memory with --on whose documents are trained on");
  }
  train::TrainableOptions& options = arguments.trainable;
  ASSIGN_OR_RETURN(options.device, ParseTrainingDevice(arguments.device));
  ASSIGN_OR_RETURN(options.type, ParsePrecision(arguments.precision, options.device));
  using Update = train::TrainableOptions::Update;
  if (arguments.update == "full") {
    options.update = Update::kFull;
  } else if (arguments.update == "gains") {
    options.update = Update::kNone;
  } else if (arguments.update != "lora") {
    return absl::InvalidArgumentError(
        StrCat("update \"", arguments.update, "\", want lora, full or gains"));
  }
  // Gains of memory keys are an adapter's: a model that is trained whole has its matrices.
  options.trains_key_gain = arguments.has_key_gains && options.update != Update::kFull;
  options.seed = arguments.batch.seed;
  arguments.train.folder = arguments.folder;
  // Before files are written and questions are asked.
  ASSIGN_OR_RETURN(arguments.train.contexts, train::ContextSchedule::Parse(arguments.contexts));
  RETURN_IF_ERROR(train::CheckRun(arguments.train, nullptr));

  if (!arguments.on.empty()) RETURN_IF_ERROR(StudyMemory(&arguments, bar.progress()));
  // Memory layers by --mem-layers; an adapter to go on from by --adapter.
  ModelOptions model_options = arguments.model;
  model_options.mem_layers.clear();
  if (!model_options.adapter.has_value()) model_options.adapter = "none";
  ASSIGN_OR_RETURN(const model_home::ModelChoice choice, ChooseNewModel(model_options));
  ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(choice.model));
  std::unique_ptr<model::Adapter> start;
  if (choice.adapter.has_value()) {
    ASSIGN_OR_RETURN(start, model::Adapter::Load(*choice.adapter, checkpoint->config()));
    options.mem_layers = start->memory_config().mem_layers;
    options.mem_positionals = start->memory_config().mem_positionals;
  }
  if (!arguments.model.mem_layers.empty()) {
    ASSIGN_OR_RETURN(options.mem_layers, ParseLayers(arguments.model.mem_layers));
  }
  if (options.mem_layers.empty()) {
    return absl::InvalidArgumentError(
        "no memory layers: name them with --mem-layers (9,15,21 of 30, say), or an adapter that "
        "has "
        "some with --adapter");
  }
  ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Create(checkpoint->tokenizer_spec()));
  model::ChatFormat format = model::RecognizeChatFormat(checkpoint->tokenizer_spec().chat_template);
  if (!arguments.chat.empty()) {
    ASSIGN_OR_RETURN(format, model::ParseChatFormat(arguments.chat));
  }
  const train::ExchangeWriter writer(tokenizer.get(), format, nullptr);
  ASSIGN_OR_RETURN(const train::TrainingTexts texts,
                   train::ReadTrainingTexts({arguments.texts.begin(), arguments.texts.end()},
                                            writer, arguments.max_tokens, bar.progress()));
  if (!arguments.packing.empty()) {
    ASSIGN_OR_RETURN(arguments.batch.packings, train::ParsePackings(arguments.packing));
  }
  if (arguments.train.distill_weight > 0.0) {
    arguments.batch.teacher_tokens = arguments.batch.query_tokens;
  }
  ASSIGN_OR_RETURN(const auto batches, train::BatchMaker::Create(&texts, &writer, arguments.batch));
  ASSIGN_OR_RETURN(const std::vector<int> mass_layers, ParseLayers(arguments.mass_layers));
  train::AdapterDescription description;
  for (size_t i = 0; i < options.mem_layers.size(); ++i) {
    const int layer = options.mem_layers[i];
    const bool is_named =
        std::find(mass_layers.begin(), mass_layers.end(), layer) != mass_layers.end();
    // By default all but the first: in SmolLM2 its mass hardly names passages.
    if (mass_layers.empty() ? i > 0 || options.mem_layers.size() == 1 : is_named) {
      arguments.train.mass_layers.push_back(static_cast<int64_t>(i));
      description.reread_layers.push_back(layer);
    }
  }
  if (!mass_layers.empty() && arguments.train.mass_layers.size() != mass_layers.size()) {
    return absl::InvalidArgumentError(
        StrCat("--mass-layers ", arguments.mass_layers, ": want some of the memory layers"));
  }
  ASSIGN_OR_RETURN(const auto model,
                   train::TrainableModel::Load(*checkpoint, start.get(), options));
  description.base_model = checkpoint->config().name;
  description.base_fingerprint = checkpoint->Fingerprint().ToHex();
  description.window = static_cast<int>(arguments.packing.empty() ? arguments.batch.context_tokens
                                                                  : arguments.batch.query_tokens);
  description.chat_template = model::ChatFormatName(format);
  description.has_system_prompt = true;  // none
  const bool is_whole = options.update == Update::kFull;
  train::WriteTrained write = [&](const train::TrainableModel& trained,
                                  const fs::path& folder) -> absl::StatusOr<fs::path> {
    RETURN_IF_ERROR(train::WriteAdapter(trained, description, folder / "adapter"));
    return folder / "adapter";
  };
  if (is_whole) {
    ASSIGN_OR_RETURN(const train::ModelFiles files, train::ReadModelFiles(choice.model));
    write = [files, &description](const train::TrainableModel& trained,
                                  const fs::path& folder) -> absl::StatusOr<fs::path> {
      RETURN_IF_ERROR(train::WriteModel(trained, files, description, folder / "model"));
      return folder / "model";
    };
  }
  RETURN_IF_ERROR(
      KeepConfiguration(arguments.train, *batches, ConfigurationOf(arguments, description)));
  return RunTraining(model.get(), *batches, arguments.train, write, is_whole ? "model" : "adapter",
                     arguments.output, &bar);
}

void AddOptions(CLI::App& app, TrainArguments* a) {
  app.option_defaults()->always_capture_default();
  app.add_option("--out", a->folder, "The run's folder: metrics, checkpoint, adapter")
      ->type_name("DIR");
  app.add_option("texts", a->texts,
                 "JSONL files, .zst too: records with text, or with context, question and answers");
  app.add_option("--on", a->on,
                 "A memory: its documents are trained on, and questions that its model asks itself "
                 "about them")
      ->type_name("DIR");
  app.add_option("--study-questions", a->study.questions_per_passage,
                 "Questions of each passage, at most");
  app.add_option("--study-seconds", a->study.n_seconds, "Time for them; 0: as long as it takes");
  AddModelOptions(&app, &a->model);
  app.add_option("--device", a->device, "cpu or cuda[:N]");
  app.add_option("--precision", a->precision, "auto (bfloat16 on a GPU), float32 or bfloat16");
  app.add_option("--update", a->update,
                 "lora, full (a model's folder instead of an adapter) or gains");
  app.add_option("--rank", a->trainable.lora_rank, "Of the LoRA");
  app.add_option("--alpha", a->trainable.lora_alpha, "Of the LoRA");
  app.add_flag("!--no-key-gains", a->has_key_gains, "Train no gains of the memory keys");
  app.add_option("--steps", a->train.n_steps, "Length of the run; a run of steps resumes exactly");
  app.add_option("--seconds", a->train.n_seconds, "Length of the run, in time");
  app.add_option("--lr", a->train.learning_rate.peak, "Highest learning rate");
  app.add_option("--warmup", a->train.learning_rate.n_warmup, "Steps up to it");
  app.add_option("--batch", a->batch.n_entries, "Contexts, and sequences, of a step");
  app.add_option("--context-tokens", a->batch.context_tokens, "Of a context: a window");
  app.add_option("--query-tokens", a->batch.query_tokens, "Of a sequence");
  app.add_option("--contexts", a->contexts, "Contexts that a sequence sees, along the run");
  app.add_option("--packing", a->packing,
                 "LongLLaMA's form instead, books alone: by part of the batch, contexts of the own "
                 "document and of others, such as 0+0,1+1,2+1,3+0");
  app.add_option("--local", a->train.local_share, "Share of steps without a memory");
  app.add_option("--books", a->batch.book_share, "Share of sequences that go on with a text");
  app.add_option("--questions", a->batch.question_share, "Share of sequences with questions");
  app.add_option("--reread", a->batch.reread_share,
                 "Of those with questions or facts: with passages in the prompt as well");
  app.add_option("--passages", a->batch.most_passages, "Of such a prompt, at most");
  app.add_option("--neighbours", a->batch.neighbour_share,
                 "Share of passages that lie among those of their document, in memory and prompts; "
                 "others among those that words find");
  app.add_option("--passage-bytes", a->batch.passage_bytes, "Of such a passage, at most");
  app.add_option("--ask", a->batch.ask_share,
                 "Of the questions in steps without a memory: the model is to ask them");
  app.add_option("--book-asks", a->batch.book_asks,
                 "Tokens of a text that goes on whose attention mass is to find its own context");
  app.add_option("--mass-weight", a->train.mass_weight,
                 "Of the contrastive loss on attention mass");
  app.add_option("--distill", a->train.distill_weight,
                 "Of the loss against what the model itself says with the passage in its prompt");
  app.add_option("--mass-layers", a->mass_layers, "Memory layers that it is of");
  app.add_option("--chat", a->chat, "Format of questions, where the model's own is not known");
  app.add_option("--max-tokens", a->max_tokens, "Of the texts, at most");
  app.add_option("--seed", a->batch.seed, "Another run");
  app.add_option("--log-every", a->train.log_every, "Steps between lines of metrics");
  app.add_option("--checkpoint-every", a->train.checkpoint_every_s, "Seconds between checkpoints");
  app.add_flag("--resume", a->train.resumes, "Go on from the folder's checkpoint");
  AddOutputOptions(&app, &a->output);
  SetExample(&app,
             "fovea train --out run --mem-layers 9,15,21 --steps 2000 books.jsonl questions.jsonl");
}

int PrintError(std::string_view message) {
  std::fprintf(stderr, "fovea: %s\n", Printable(message).c_str());
  return kFailed;
}

int Main(int argc, char** argv) {
  InstallSignalHandlers();
  CLI::App app("Trains a model's memory layers (Focused Transformer).", "fovea train");
  app.failure_message(UsageMessage);
  TrainArguments arguments;
  AddOptions(app, &arguments);
  Run run = [&arguments] { return RunTrain(std::move(arguments)); };
  AddTrainDictionary(app, &run);
  try {
    ParseAsWritten(&app, argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) != 0 ? kWrongUsage : kDone;
  }
  const absl::StatusOr<ExitCode> code = run();
  if (code.ok()) return *code;
  if (absl::IsAborted(code.status()) || absl::IsCancelled(code.status())) return kFailed;
  PrintError(ToStd(code.status().message()));
  return absl::IsInvalidArgument(code.status()) ? kWrongUsage : kFailed;
}

}  // namespace
}  // namespace fovea::cli

int main(int argc, char** argv) {
  if (!fovea::cli::OccupyStandardDescriptors()) return fovea::cli::kFailed;
  try {
    return fovea::cli::Main(argc, argv);
  } catch (const c10::OutOfMemoryError&) {
    return fovea::cli::PrintError(
        "the GPU's memory is full: make --batch, --context-tokens or --contexts smaller");
  } catch (const std::bad_alloc&) {
    return fovea::cli::PrintError("out of memory");
  } catch (const std::exception& error) {
    return fovea::cli::PrintError(error.what());
  }
}
