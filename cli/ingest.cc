// fovea ingest: files, folders and standard input into a memory.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "cli/command.h"
#include "cli/encode_estimate.h"
#include "cli/folder_watch.h"
#include "cli/ingest_plan.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress_bar.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "documents/file_kind.h"
#include "documents/names.h"
#include "documents/text_document.h"
#include "memory/ingest/gone_sources.h"
#include "memory/ingest/ingester.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using memory::IngestedDocument;

constexpr std::string_view kStandardInput = "-";
// After a change, before the files are read: most changes come in groups.
constexpr std::chrono::milliseconds kQuiet(500);
constexpr std::chrono::milliseconds kMostDelay(5000);
constexpr std::chrono::milliseconds kRetryDelay(2000);

struct IngestArguments {
  std::string memory;
  std::string collection = "default";
  int window = 0;
  int overlap = -1;
  std::string encoding;
  std::string index;
  bool recursive = false;
  bool syncs = false;
  bool watches = false;
  bool dry_run = false;
  std::string title;
  std::vector<std::string> paths;
  ModelOptions model;
  ComputeOptions compute;
  OutputOptions output;
};

// What a file looked like when it was read: while that stays, so does its text.
struct FileStamp {
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

std::optional<FileStamp> StampOf(const fs::path& file) {
  struct stat status {};
  if (stat(file.c_str(), &status) != 0) return std::nullopt;
  const auto ns = [](const timespec& time) {
    return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return FileStamp{status.st_ino, static_cast<uint64_t>(status.st_size), ns(status.st_mtim),
                   ns(status.st_ctim)};
}

// As files that are read are named.
std::string SourceOf(const fs::path& path) {
  return documents::SourceOfPath(path).value_or(documents::PrintableName(path.native()));
}

struct File {
  fs::path path;
  bool of_folder = false;  // not named itself: passed over when it has no text
};

// How much of a file is text, from its first bytes. Only for the bar.
double TextShare(const fs::path& file) {
  constexpr double kOfPdf = 0.1;  // fonts and pictures take the most
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return 0.0;  // opening a FIFO may wait forever
  std::string head(documents::kKindBytes, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(stream.gcount()));
  const std::string_view kind = documents::KindOf(head);
  if (kind == documents::kPdfKind) return kOfPdf;
  return kind == documents::kZipKind || (kind.empty() && documents::IsText(head)) ? 1.0 : 0.0;
}

// The command. With --watch it goes through its files again and again.
class Ingest {
 public:
  explicit Ingest(const IngestArguments& arguments)
      : arguments_(arguments), bar_(ProgressBar::ChooseStyle(arguments.output.quiet)) {}

  absl::StatusOr<ExitCode> Run() {
    if (!arguments_.watches) {
      RETURN_IF_ERROR(Round());
      return n_failed_ == 0 ? kDone : kFailed;
    }
    ASSIGN_OR_RETURN(const auto watch,
                     FolderWatch::Create({arguments_.paths.begin(), arguments_.paths.end()},
                                         &memory::Memory::Exists));
    for (;;) {
      RETURN_IF_ERROR(watch->Update());
      const absl::Status status = Round();
      // Another process that writes to the memory is done some time; a GPU that is not there stays
      // away.
      const bool may_become_well = absl::IsUnavailable(status) && !has_device_failed_;
      if (!status.ok() && !may_become_well) return status;
      if (!status.ok()) {
        std::fprintf(stderr, "fovea: %s; trying again\n", std::string(status.message()).c_str());
      }
      if (!arguments_.output.quiet && status.ok() && !said_watching_) {
        said_watching_ = true;
        std::fputs("fovea: watching for changes; Ctrl-C ends\n", stderr);
      }
      if (status.ok()) {
        ASSIGN_OR_RETURN(const bool changed, watch->Wait(kQuiet, kMostDelay, InterruptFlag()));
        if (!changed) return kDone;
      } else {
        std::this_thread::sleep_for(kRetryDelay);
        if (Interrupted()) return kDone;
      }
    }
  }

 private:
  // Goes once through the files.
  absl::Status Round() {
    files_.clear();
    left_out_.clear();
    summary_ = {};
    n_stored_ = 0;
    bar_.Restart();
    RETURN_IF_ERROR(ListFiles());
    absl::Status status = absl::OkStatus();
    if (!files_.empty() || gone_ != nullptr) {
      status = arguments_.dry_run ? PlanFiles() : IngestFiles();
    }
    for (const documents::FileList::LeftOut& left_out : left_out_) {
      summary_.AddSkipped(left_out.kind, SourceOf(left_out.path));
    }
    bar_.Clear();
    summary_.seconds = std::chrono::duration<double>(Clock::now() - started_at_).count();
    // Where nothing was begun there is nothing to sum up: only the error. One that watches speaks
    // when something changed.
    absl::Status written;
    const bool has_news = !arguments_.watches || !summary_.documents.empty() || is_first_round_;
    if (has_news && (status.ok() || absl::IsCancelled(status) || !summary_.documents.empty())) {
      summary_.dry_run = arguments_.dry_run;
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
    is_first_round_ = false;
    return written;
  }

  // The files to read; a path that cannot be listed is a failed document.
  absl::Status ListFiles() {
    std::vector<std::string> roots;
    std::vector<std::string> unread;
    for (const std::string& path : arguments_.paths) {
      if (path == kStandardInput) {
        files_.push_back({path, /*of_folder=*/false});
        continue;
      }
      ASSIGN_OR_RETURN(const std::string root, documents::SourceOfPath(path));
      roots.push_back(root);
      std::error_code error;
      if (arguments_.syncs && fs::status(path, error).type() == fs::file_type::not_found) {
        // It may be a mistake, or a disk that is not there now.
        Fail(path, absl::NotFoundError(
                       StrCat(documents::PrintableName(path),
                              ": there is no such file or folder, and what is stored of it stays: "
                              "--sync removes what a folder that it is given no longer has")));
        unread.push_back(root);
        continue;
      }
      absl::StatusOr<documents::FileList> list =
          documents::ListDocuments(path, arguments_.recursive, &memory::Memory::Exists);
      const bool is_folder = fs::is_directory(path, error);
      if (arguments_.syncs && absl::IsNotFound(list.status()) && is_folder) {
        list.emplace();  // an empty folder: everything of it is gone
      }
      if (!list.ok()) {
        Fail(path, list.status());
        unread.push_back(root);
        continue;
      }
      summary_.has_folders |= is_folder;
      for (fs::path& file : list->files) files_.push_back({std::move(file), is_folder});
      for (auto& left_out : list->left_out) left_out_.push_back(std::move(left_out));
    }
    if (!arguments_.syncs) return absl::OkStatus();
    gone_ = std::make_unique<memory::GoneSources>(std::move(roots));
    for (const std::string& root : unread) gone_->AddUnread(root);
    for (const auto& left_out : left_out_) gone_->AddLeftOut(SourceOf(left_out.path));
    return absl::OkStatus();
  }

  // Once; the model first: a memory is not made for a model that does not load.
  absl::Status LoadModelFor(std::unique_ptr<memory::Memory>* memory) {
    memory::MemoryOptions memory_options;
    memory_options.mode = storage::OpenMode::kCreate;
    if (memory::Memory::Exists(arguments_.memory)) {
      ASSIGN_OR_RETURN(*memory, memory::Memory::Open(arguments_.memory, memory_options));
    }
    if (model_ == nullptr) {
      absl::StatusOr<std::unique_ptr<compute::Device>> device = CreateDevice(arguments_.compute);
      has_device_failed_ = !device.ok();
      RETURN_IF_ERROR(device.status());
      device_ = *std::move(device);
      if (*memory != nullptr && (*memory)->settings().has_value()) {
        ASSIGN_OR_RETURN(choice_,
                         model_home::RememberedModel(model_home::ModelHome::FromEnvironment(),
                                                     *(*memory)->settings(), arguments_.model.model,
                                                     arguments_.model.adapter_or_layers()));
      } else {
        ASSIGN_OR_RETURN(choice_, ChooseNewModel(arguments_.model));
        PrintAdapterWarning(choice_);
        if (!choice_.adapter_warning.empty()) {
          summary_.warnings.push_back({choice_.model.native(), choice_.adapter_warning});
        }
      }
      ASSIGN_OR_RETURN(model_, LoadModel(device_.get(), choice_));
      const std::string warning = ModelWarning(choice_, *model_);
      if (!warning.empty()) summary_.warnings.push_back({choice_.adapter->native(), warning});
    }
    if (*memory == nullptr) {
      ASSIGN_OR_RETURN(*memory, memory::Memory::Open(arguments_.memory, memory_options));
    }
    return absl::OkStatus();
  }

  absl::Status IngestFiles() {
    std::unique_ptr<memory::Memory> memory;
    const bool is_first = model_ == nullptr;
    RETURN_IF_ERROR(LoadModelFor(&memory));
    if (is_first) {
      ASSIGN_OR_RETURN(const auto answerer,
                       answer::Answerer::Create(device_.get(), model_.get(), memory.get()));
      PrintHint(arguments_.output, answerer->Hint({}));
    }

    memory::IngestOptions options;
    options.model_name = choice_.model_name;
    options.adapter_name = choice_.adapter_name;
    options.window = arguments_.window;
    options.overlap = arguments_.overlap;
    options.encoding = arguments_.encoding;
    options.index_spec = arguments_.index;
    options.one_text_per_source = true;
    options.progress = bar_.progress();
    options.on_document = [this](const IngestedDocument& document) { Report(document); };
    started_at_ = Clock::now();
    EstimateTotal(*memory);
    ASSIGN_OR_RETURN(const auto ingester,
                     memory::Ingester::Create(memory.get(), model_.get(), options));
    std::map<fs::path, FileStamp> stamps;
    for (const File& file : files_) {
      const auto add = [&](documents::TextDocument& document) {
        return ingester->Add(document, arguments_.collection);
      };
      RETURN_IF_ERROR(ReadFile(file, &stamps, add));
    }
    if (gone_ != nullptr) {
      RETURN_IF_ERROR(ingester->RemoveSources(
          [this](const std::string& source) { return gone_->IsGone(source); }));
    }
    RETURN_IF_ERROR(ingester->Finish());
    if (const std::string reason = memory->text_index_made_again(); !reason.empty()) {
      Warn(arguments_.memory, StrCat("the text index was made again: ", reason));
    }
    stamps_ = std::move(stamps);
    return absl::OkStatus();
  }

  // What IngestFiles would do, without a model.
  absl::Status PlanFiles() {
    std::unique_ptr<memory::Memory> memory;
    if (memory::Memory::Exists(arguments_.memory)) {
      ASSIGN_OR_RETURN(memory, memory::Memory::Open(arguments_.memory, {}));
    }
    IngestPlan plan(memory.get());
    std::map<fs::path, FileStamp> stamps;
    for (const File& file : files_) {
      const auto add = [&](documents::TextDocument& document) -> absl::Status {
        absl::StatusOr<IngestedDocument> planned =
            plan.Add(document, arguments_.collection, options_progress_);
        if (absl::IsCancelled(planned.status())) return planned.status();
        if (planned.ok()) {
          Report(*planned);
        } else {
          Fail(document.source, planned.status());
        }
        return absl::OkStatus();
      };
      RETURN_IF_ERROR(ReadFile(file, &stamps, add));
    }
    if (gone_ != nullptr) {
      for (const IngestedDocument& removed : plan.RemoveSources(
               [this](const std::string& source) { return gone_->IsGone(source); })) {
        Report(removed);
      }
    }
    return absl::OkStatus();
  }

  // Gives the documents of a file to `add`, unless nothing is new in it. Returns what ends the
  // whole ingest.
  absl::Status ReadFile(const File& input, std::map<fs::path, FileStamp>* stamps,
                        absl::FunctionRef<absl::Status(documents::TextDocument&)> add) {
    RETURN_IF_ERROR(options_progress_.CheckCancelled());
    const fs::path& file = input.path;
    std::string source(kStandardInput);
    if (file != kStandardInput) {
      ASSIGN_OR_RETURN(source, documents::SourceOfPath(file));
    }
    const std::optional<FileStamp> stamp = StampOf(file);
    if (IsReadBefore(file, stamp)) {
      stamps->insert({file, *stamp});
      gone_->AddUnread(source);
      return absl::OkStatus();
    }
    const int64_t n_failed_before = n_failed_;
    absl::Status ended;
    const auto visit = [&](const std::string& name,
                           absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) {
      if (absl::IsCancelled(document.status())) return ended = document.status();
      const std::string kind = documents::KindOfError(document.status());
      if (input.of_folder && !kind.empty()) {
        summary_.AddSkipped(kind, name);
        estimate_.Skip(name);
        return absl::OkStatus();
      }
      if (!document.ok()) {
        Fail(name, document.status());
        return absl::OkStatus();
      }
      if (!arguments_.title.empty()) (*document)->title = arguments_.title;
      ended = add(**document);
      if (!(*document)->warning.empty()) Warn((*document)->source, (*document)->warning);
      return ended;
    };
    absl::Status status;
    if (file == kStandardInput) {
      status = visit(std::string(kStandardInput), documents::ReadStandardInput());
    } else {
      status = documents::ReadDocuments(file, {}, visit);
    }
    RETURN_IF_ERROR(ended);
    if (absl::IsCancelled(status)) return status;
    if (!status.ok()) Fail(file.string(), status);
    const bool is_whole = n_failed_ == n_failed_before;
    if (is_whole && stamp) stamps->insert({file, *stamp});
    if (gone_ == nullptr) return absl::OkStatus();
    // The text that a file had goes when the file has no text any more, not when that cannot be
    // told.
    if (is_whole) {
      gone_->AddRead(source);
    } else {
      gone_->AddUnread(source);
    }
    return absl::OkStatus();
  }

  bool IsReadBefore(const fs::path& file, const std::optional<FileStamp>& stamp) const {
    const auto read_before = stamps_.find(file);
    return stamp && read_before != stamps_.end() && read_before->second == *stamp;
  }

  // What is not stored is said even to those who asked for quiet.
  void Warn(const std::string& source, const std::string& warning) {
    bar_.Clear();
    std::fprintf(stderr, "fovea: %s: %s\n", Printable(source).c_str(), Printable(warning).c_str());
    summary_.warnings.push_back({source, warning});
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
    estimate_.Report(document);
    bar_.SetTotal("encode", estimate_.tokens());
    if (document.status == memory::IngestStatus::kFailed) {
      ++n_failed_;
      bar_.Clear();
      std::fputs(StrCat("fovea: ", FormatIngested(document)).c_str(), stderr);
    } else {
      ++n_stored_;
      const bool is_news =
          document.status != memory::IngestStatus::kUnchanged || document.is_new_source;
      if (arguments_.watches && !is_news) return;
      if (!arguments_.output.json) {
        bar_.Clear();
        // A closed pipe does not stop the storing; the summary's write reports it.
        WriteOutput(FormatIngested(document)).IgnoreError();
      }
    }
    summary_.Add(document);
  }

  // For the bar, before files are read.
  void EstimateTotal(const memory::Memory& memory) {
    estimate_ = EncodeEstimate(memory.Current()->documents);
    for (const File& file : files_) {
      const std::optional<FileStamp> stamp = StampOf(file.path);
      const auto source = documents::SourceOfPath(file.path);
      if (file.path == kStandardInput) {
        estimate_.AddUnknown();
      } else if (stamp && source.ok() && !IsReadBefore(file.path, stamp)) {
        const uint64_t text_bytes =
            static_cast<uint64_t>(static_cast<double>(stamp->size_bytes) * TextShare(file.path));
        estimate_.AddFile(*source, text_bytes, stamp->modified_ns / 1'000'000'000);
      }
    }
    bar_.SetTotal("encode", estimate_.tokens());
  }

  const IngestArguments& arguments_;
  ProgressBar bar_;
  const Progress options_progress_{nullptr, InterruptFlag()};
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  model_home::ModelChoice choice_;
  std::vector<File> files_;
  std::vector<documents::FileList::LeftOut> left_out_;
  std::unique_ptr<memory::GoneSources> gone_;  // with --sync
  std::map<fs::path, FileStamp> stamps_;       // with --watch: of what was read whole
  bool is_first_round_ = true;
  bool said_watching_ = false;
  bool has_device_failed_ = false;
  EncodeEstimate estimate_;
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
      "ingest",
      "Store documents: text of any kind, Markdown, HTML, JSONL, PDF, DOCX, ODT, EPUB; - is "
      "standard input");
  const auto arguments = std::make_shared<IngestArguments>();
  AddMemoryOption(command, &arguments->memory)->required();
  AddModelOptions(command, &arguments->model);
  command->add_option("--collection", arguments->collection, "The set that the documents join")
      ->check([](const std::string& name) {
        return std::string(ToStd(documents::CheckCollectionName(name).message()));
      })
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
  command->add_flag("--sync", arguments->syncs,
                    "As --recursive; what the folders no longer have is removed");
  command->add_flag("--watch", arguments->watches, "As --sync, again whenever something changes");
  command->add_flag("--dry-run", arguments->dry_run, "Only say what would be done");
  command->add_option("--title", arguments->title, "Of the one document")->type_name("T");
  command->add_option("PATH", arguments->paths, "Files, folders, or -")->required();
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, "fovea ingest --memory notes --recursive books/ letter.pdf");
  command->callback([arguments, run] {
    if (!arguments->title.empty() && arguments->paths.size() > 1) {
      throw CLI::ValidationError("--title", "names one document, give one PATH");
    }
    if (arguments->watches) arguments->syncs = true;
    if (arguments->syncs) {
      arguments->recursive = true;
      const auto& paths = arguments->paths;
      if (std::find(paths.begin(), paths.end(), kStandardInput) != paths.end()) {
        throw CLI::ValidationError("--sync", "is for files and folders, not for standard input");
      }
    }
    if (arguments->watches && arguments->dry_run) {
      throw CLI::ValidationError("--dry-run",
                                 "does nothing, and --watch goes on; give one of them");
    }
    *run = [arguments] { return RunIngest(*arguments); };
  });
}

}  // namespace fovea::cli
