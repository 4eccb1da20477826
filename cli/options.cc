#include "cli/options.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "memory/search/searcher.h"
#include "model_home/model_home.h"

namespace fovea::cli {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxTopK = 1 << 20;
constexpr int kMaxCount = std::numeric_limits<int>::max();

// Whether `text` is a finite number that `is_wanted`. (A range's message would print its limits
// with all their digits.)
bool IsNumber(const std::string& text, bool (*is_wanted)(double)) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0' && std::isfinite(value) && is_wanted(value);
}

// "cpu", "cuda" or "cuda:N".
bool IsDevice(std::string_view spec) {
  constexpr std::string_view kNumbered = "cuda:";
  constexpr size_t kMaxDigits = 9;
  if (!spec.starts_with(kNumbered)) return spec == "cpu" || spec == "cuda";
  spec.remove_prefix(kNumbered.size());
  return !spec.empty() && spec.size() <= kMaxDigits &&
         spec.find_first_not_of("0123456789") == std::string_view::npos;
}

// "8G", "1.5 GiB", "500M" or a number of bytes, in the place of which it puts their number; letters
// count in steps of 1024. Returns what is wrong.
std::string ToBytes(std::string& text) {
  const std::string wanted =
      StrCat("\"", text, "\": want a size above 0, such as 8G, 1.5G or 500M");
  constexpr std::string_view kUnits = "kmgtp";
  double n_bytes = 0.0;
  const char* const end_of_text = text.data() + text.size();
  const auto [end, error] =
      std::from_chars(text.data(), end_of_text, n_bytes, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(n_bytes)) return wanted;
  std::string unit(end, end_of_text);
  unit.erase(0, unit.find_first_not_of(' '));
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const size_t power = unit.empty() ? std::string_view::npos : kUnits.find(unit[0]);
  if (power != std::string_view::npos) {
    n_bytes *= std::pow(1024.0, static_cast<double>(power + 1));
    unit.erase(0, 1);
    if (unit.starts_with("ib")) unit.erase(0, 1);
  }
  if (!unit.empty() && unit != "b") return wanted;
  constexpr double kMostBytes = 1e18;
  if (!(n_bytes >= 1.0 && n_bytes <= kMostBytes)) return wanted;
  text = StrCat(static_cast<uint64_t>(n_bytes));
  return "";
}

}  // namespace

void AddOutputOptions(CLI::App* command, OutputOptions* options) {
  command->add_flag("--json", options->json, "One JSON object a result on standard output");
  command->add_flag("--quiet", options->quiet, "No progress and no hints on standard error");
}

CLI::Option* AddMemoryOption(CLI::App* command, std::string* memory) {
  return command->add_option("--memory", *memory, "The memory: a folder")
      ->envname("FOVEA_MEMORY")
      ->type_name("DIR");
}

void AddComputeOptions(CLI::App* command, ComputeOptions* options) {
  command
      ->add_option("--threads", options->threads,
                   "Threads (default, and at most: the machine's cores)")
      ->check(CLI::Range(1, kMaxThreads))
      ->type_name("N");
  AddDeviceOptions(command, options);
  command
      ->add_option(
          "--precision", options->precision,
          "Of products with weights: float32, int8 (cpu), bfloat16 (cuda), or auto (default): the "
          "faster one here")
      ->check(CLI::IsMember({"auto", "float32", "int8", "bfloat16"}))
      ->type_name("TYPE");
}

void AddDeviceOptions(CLI::App* command, ComputeOptions* options) {
  CLI::Option* device =
      command->add_option("--device", options->device, "cpu (default), or cuda[:N]")
          ->check([](const std::string& spec) {
            return IsDevice(spec) ? std::string()
                                  : StrCat("\"", spec, "\": want cpu, cuda or cuda:N, N from 0");
          })
          ->type_name("DEVICE");
  command
      ->add_option("--gpu-memory", options->gpu_memory_bytes,
                   "What the memory's keys, codes and values may take of the GPU (default: what is "
                   "free): 8G, 500M")
      ->transform(CLI::Validator(ToBytes, ""))
      ->needs(device)
      ->type_name("SIZE");
}

void AddModelOptions(CLI::App* command, ModelOptions* options) {
  command
      ->add_option("--model", options->model,
                   "A GGUF file, a safetensors folder, or a name (default: FOVEA_MODEL, else "
                   "smollm2)")
      ->type_name("PATH|NAME");
  CLI::Option* adapter =
      command
          ->add_option("--adapter", options->adapter,
                       "An adapter's folder or name, or none (default: the one made for the model)")
          ->type_name("DIR|none");
  command
      ->add_option("--mem-layers", options->mem_layers,
                   "Memory layers, counted from 0, for a model without an adapter: 9,15,21")
      ->excludes(adapter)
      ->type_name("LIST");
}

void AddMovedModelOptions(CLI::App* command, ModelOptions* options) {
  command
      ->add_option("--model", options->model, "Where the memory's model lies, if not where it was")
      ->type_name("PATH|NAME");
  command
      ->add_option("--adapter", options->adapter,
                   "Where the memory's adapter lies, if not where it was")
      ->type_name("DIR|none");
}

std::optional<std::string> ModelOptions::adapter_or_layers() const {
  if (mem_layers.empty()) return adapter;
  return StrCat(model_home::kLayersPrefix, mem_layers);
}

void AddQuestionOptions(CLI::App* command, QuestionOptions* options) {
  answer::AskOptions& ask = options->ask;
  AddRepeatedOption(command, "--collection", &ask.scope.collections,
                    "Only documents of this collection (repeatable)")
      ->type_name("NAME");
  AddRepeatedOption(command, "--document", &ask.scope.documents,
                    "Only this document: its id or the beginning of it (repeatable)")
      ->type_name("ID");
  command
      ->add_option(
          "--mode", options->mode,
          "Search of the memory: approximate (default), exact, or dense (every key; default "
          "for LongLLaMA)")
      ->check(CLI::IsMember({"dense", "exact", "approximate"}))
      ->type_name("MODE");
  command->add_option("--top-k", ask.top_k, "Keys kept per query head (default: the model's)")
      ->check(CLI::Range(1, kMaxTopK))
      ->type_name("N");
  command->add_option("--max-tokens", ask.max_tokens, "Longest answer")
      ->check(CLI::Range(0, kMaxCount))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--temperature", ask.temperature, "0: always the likeliest token")
      ->check([](const std::string& text) {
        return IsNumber(text, [](double value) { return value >= 0.0; })
                   ? std::string()
                   : StrCat("\"", text, "\": want a number, 0 or more");
      })
      ->capture_default_str()
      ->type_name("T");
  command
      ->add_option("--top-p", ask.top_p,
                   "At a temperature above 0, draw from the likeliest tokens with this share of "
                   "the probability")
      ->check([](const std::string& text) {
        return IsNumber(text, [](double value) { return value > 0.0 && value <= 1.0; })
                   ? std::string()
                   : StrCat("\"", text, "\": want a number above 0, at most 1");
      })
      ->capture_default_str()
      ->type_name("P");
  command->add_option("--seed", ask.seed, "Of the draws at a temperature above 0")
      ->capture_default_str()
      ->type_name("N");
  AddRepeatedOption(command, "--stop", &ask.stop, "End the answer before this text (repeatable)")
      ->check([](const std::string& stop) {
        return stop.empty() ? std::string("an empty text: every answer would end before it")
                            : std::string();
      })
      ->type_name("TEXT");
  command->add_option("--sources", ask.n_sources, "Sources named with an answer")
      ->check(CLI::Range(0, kMaxCount))
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--marks", ask.marks,
                    "Name sources in the answer's text: [1] behind a sentence that source 1 has");
  CLI::Option* raw =
      command->add_flag("--raw", ask.raw, "Continue the text as it is, without the chat template");
  command
      ->add_option_function<std::string>(
          "--system", [options](const std::string& text) { options->system = text; },
          "System message, in the place of the model's own; \"\": none")
      ->excludes(raw)
      ->type_name("TEXT");
  command->add_flag("--no-memory", options->no_memory, "The model alone");
  command
      ->add_option("--reread", options->reread,
                   "Passages whose text joins the prompt; 0: none (default: what measured best for "
                   "the model)")
      ->check(CLI::Range(0, kMaxCount))
      ->type_name("N");
  command
      ->add_option("--reread-by", options->reread_by,
                   "Find them by attention, bm25 (words), or both")
      ->check(CLI::IsMember({"attention", "bm25", "both"}))
      ->type_name("HOW");
  command
      ->add_option("--reread-memory", options->reread_memory,
                   "The memory while such passages are read: on or off (default: what measured "
                   "best for the model)")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off");
  command->add_flag("--audit", ask.audit,
                    "Report what the search of the memory captured, by memory layer");
}

absl::StatusOr<answer::Request> ToRequest(const QuestionOptions& options) {
  answer::Request request;
  if (options.system.has_value()) {
    request.messages.push_back({model::ChatMessage::Role::kSystem, *options.system});
  }
  answer::AskOptions& ask = request.options;
  ask = options.ask;
  if (!options.mode.empty()) {
    ASSIGN_OR_RETURN(ask.mode, memory::ParseSearchMode(options.mode));
  }
  ask.use_memory = !options.no_memory;
  if (options.reread >= 0) ask.reread = options.reread;
  if (!options.reread_memory.empty()) ask.reread_memory = options.reread_memory == "on";
  if (!options.reread_by.empty()) {
    ASSIGN_OR_RETURN(ask.reread_by, answer::ParseRereadBy(options.reread_by));
  }
  return request;
}

answer::Request WithQuestion(const answer::Request& request, const std::string& question) {
  answer::Request whole = request;
  whole.messages.push_back({model::ChatMessage::Role::kUser, question});
  return whole;
}

CLI::Option* AddRepeatedOption(CLI::App* command, const std::string& name,
                               std::vector<std::string>* values, const std::string& description) {
  return command->add_option(name, *values, description)->allow_extra_args(false);
}

void SetExample(CLI::App* command, const std::string& example) {
  command->footer(StrCat("Example:\n  ", example));
}

}  // namespace fovea::cli
