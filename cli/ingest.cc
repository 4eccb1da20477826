// fovea ingest: files, folders and standard input into a memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "documents/text_document.h"
#include "memory/ingester.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using memory::IngestedDocument;

constexpr std::string_view kStandardInput = "-";
// Of English text with vocabularies of some 50,000 tokens; only for the bar.
constexpr double kBytesPerToken = 4.2;

struct IngestArguments {
  std::string memory;
  std::string collection = "default";
  int window = 0;
  int overlap = -1;
  std::string encoding;
  std::string index;
  bool recursive = false;
  std::string title;
  std::vector<std::string> paths;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

// One run of the command.
class Ingest {
 public:
  explicit Ingest(const IngestArguments& arguments)
      : arguments_(arguments), bar_(ProgressBar::ChooseStyle(arguments.output.quiet)) {}

  absl::StatusOr<ExitCode> Run() {
    ListFiles();
    absl::Status status = absl::OkStatus();
    if (!files_.empty()) status = IngestFiles();
    bar_.Clear();
    summary_.seconds = std::chrono::duration<double>(Clock::now() - started_at_).count();
    // Where nothing was begun there is nothing to sum up: only the error.
    absl::Status written;
    if (status.ok() || absl::IsCancelled(status) || !summary_.documents.empty()) {
      written = WriteOutput(arguments_.output.json ? JsonLine(ToJson(summary_))
                                                   : FormatSummary(summary_));
    }
    if (absl::IsCancelled(status)) {
      std::fprintf(stderr,
                   "fovea: interrupted; %s of the documents are stored. The same command goes on "
                   "from here: what is stored is not encoded again.\n",
                   FormatCount(n_stored_).c_str());
    }
    RETURN_IF_ERROR(status);
    RETURN_IF_ERROR(written);
    return n_failed_ == 0 ? kDone : kFailed;
  }

 private:
  // The files to read; a path that cannot be listed is a failed document.
  void ListFiles() {
    for (const std::string& path : arguments_.paths) {
      if (path == kStandardInput) {
        files_.emplace_back(path);
        continue;
      }
      absl::StatusOr<std::vector<fs::path>> files =
          documents::ListDocuments(path, arguments_.recursive);
      if (!files.ok()) {
        Fail(path, files.status());
        continue;
      }
      files_.insert(files_.end(), files->begin(), files->end());
    }
  }

  absl::Status IngestFiles() {
    // The model first: a memory is not made for a model that does not load.
    ASSIGN_OR_RETURN(const auto device, CreateDevice(arguments_.compute));
    std::unique_ptr<memory::Memory> memory;
    answer::ModelChoice choice;
    memory::MemoryOptions memory_options;
    memory_options.mode = storage::OpenMode::kCreate;
    if (memory::Memory::Exists(arguments_.memory)) {
      ASSIGN_OR_RETURN(memory, memory::Memory::Open(arguments_.memory, memory_options));
    }
    if (memory != nullptr && memory->settings().has_value()) {
      ASSIGN_OR_RETURN(choice, answer::RememberedModel(answer::ModelHome::FromEnvironment(),
                                                       *memory->settings(), arguments_.model.model,
                                                       arguments_.model.adapter_or_layers()));
    } else {
      ASSIGN_OR_RETURN(choice, ChooseNewModel(arguments_.model));
    }
    ASSIGN_OR_RETURN(const auto model, LoadModel(device.get(), choice));
    if (memory == nullptr) {
      ASSIGN_OR_RETURN(memory, memory::Memory::Open(arguments_.memory, memory_options));
    }
    ASSIGN_OR_RETURN(const auto answerer,
                     answer::Answerer::Create(device.get(), model.get(), memory.get()));
    PrintHint(arguments_.output, answerer->Hint());

    memory::IngestOptions options;
    options.model_name = choice.model_name;
    options.adapter_name = choice.adapter_name;
    options.window = arguments_.window;
    options.overlap = arguments_.overlap;
    options.encoding = arguments_.encoding;
    options.index_spec = arguments_.index;
    options.progress = bar_.progress();
    options.on_document = [this](const IngestedDocument& document) { Report(document); };
    started_at_ = Clock::now();
    for (const fs::path& file : files_) {
      std::error_code error;
      const uintmax_t size_bytes = fs::file_size(file, error);
      if (!error) total_bytes_ += static_cast<double>(size_bytes);
    }
    EstimateTotal();
    ASSIGN_OR_RETURN(const auto ingester,
                     memory::Ingester::Create(memory.get(), model.get(), options));
    for (const fs::path& file : files_) RETURN_IF_ERROR(IngestFile(file, ingester.get()));
    return ingester->Finish();
  }

  absl::Status IngestFile(const fs::path& file, memory::Ingester* ingester) {
    RETURN_IF_ERROR(options_progress_.CheckCancelled());
    absl::Status ended;  // what ends the whole ingest
    const auto add = [&](const std::string& source,
                         absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) {
      if (absl::IsCancelled(document.status())) return ended = document.status();
      if (!document.ok()) {
        Fail(source, document.status());
        return absl::OkStatus();
      }
      if (!arguments_.title.empty()) (*document)->title = arguments_.title;
      return ended = ingester->Add(**document, arguments_.collection);
    };
    absl::Status status;
    if (file == kStandardInput) {
      status = add(std::string(kStandardInput), documents::ReadStandardInput());
    } else {
      status = documents::ReadDocuments(file, {}, add);
    }
    RETURN_IF_ERROR(ended);
    if (absl::IsCancelled(status)) return status;
    if (!status.ok()) Fail(file.string(), status);
    return absl::OkStatus();
  }

  void Fail(const std::string& source, const absl::Status& status) {
    IngestedDocument document;
    document.source = source;
    document.status = memory::IngestStatus::kFailed;
    document.error = std::string(status.message());
    Report(document);
  }

  // Prints what is durable now.
  void Report(const IngestedDocument& document) {
    summary_.tokens += document.tokens;
    summary_.encoded_tokens += document.encoded_tokens;
    if (document.status == memory::IngestStatus::kFailed) {
      ++n_failed_;
      bar_.Clear();
      std::fputs(StrCat("fovea: ", FormatIngested(document)).c_str(), stderr);
    } else {
      ++n_stored_;
      if (!arguments_.output.json) {
        bar_.Clear();
        // A closed pipe does not stop the storing; the summary's write reports it.
        WriteOutput(FormatIngested(document)).IgnoreError();
      }
    }
    summary_.documents.push_back(document);
    EstimateTotal();
  }

  // Tokens to encode in all, for the bar.
  void EstimateTotal() {
    const auto all = static_cast<int64_t>(total_bytes_ / kBytesPerToken);
    const auto stored_before = static_cast<int64_t>(summary_.tokens - summary_.encoded_tokens);
    bar_.SetTotal("encode", std::max<int64_t>(1, all - stored_before));
  }

  const IngestArguments& arguments_;
  ProgressBar bar_;
  const Progress options_progress_{nullptr, InterruptFlag()};
  std::vector<fs::path> files_;
  double total_bytes_ = 0.0;
  Clock::time_point started_at_ = Clock::now();
  IngestSummary summary_;
  int64_t n_stored_ = 0;
  int64_t n_failed_ = 0;
};

absl::StatusOr<ExitCode> RunIngest(const IngestArguments& arguments) {
  return Ingest(arguments).Run();
}

}  // namespace

void AddIngest(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "ingest", "Store documents: text, Markdown, HTML, JSONL, PDF; - is standard input");
  const auto arguments = std::make_shared<IngestArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  AddModelOptions(command, &arguments->model);
  command->add_option("--collection", arguments->collection, "The set that the documents join")
      ->capture_default_str()
      ->type_name("NAME");
  command
      ->add_option("--window", arguments->window, "Tokens encoded at once (default: the model's)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command
      ->add_option("--overlap", arguments->overlap,
                   "Tokens of the previous window that a window sees (default: 128)")
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N");
  command
      ->add_option(
          "--encoding", arguments->encoding,
          "window-local, or reference: windows attend to the memory so far, as LongLLaMA's "
          "(default: the model's own)")
      ->check(CLI::IsMember({"window-local", "reference"}))
      ->type_name("HOW");
  command
      ->add_option("--index", arguments->index,
                   "auto (default), exact, Scan2, Scan4, Scan8, or FAISS's such as IVF1024,SQ8")
      ->type_name("SPEC");
  command->add_flag("--recursive", arguments->recursive, "The files of folders, too");
  command->add_option("--title", arguments->title, "Of the one document")->type_name("T");
  command->add_option("PATH", arguments->paths, "Files, folders, or -")->required();
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea ingest --memory notes --recursive books/ letter.pdf");
  command->callback([arguments, run] {
    if (!arguments->title.empty() && arguments->paths.size() > 1) {
      throw CLI::ValidationError("--title", "names one document, give one PATH");
    }
    *run = [arguments] { return RunIngest(*arguments); };
  });
}

}  // namespace fovea::cli
