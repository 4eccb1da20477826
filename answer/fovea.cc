#include "answer/fovea.h"

#include <chrono>
#include <system_error>
#include <utility>

#include "answer/open_memory.h"
#include "documents/file_kind.h"
#include "documents/names.h"
#include "documents/text_document.h"
#include "model/weights/adapter_base.h"
#include "model_home/model_home.h"

namespace fovea::answer {

using memory::IngestedDocument;
using model_home::ModelChoice;
using model_home::ModelHome;

absl::StatusOr<std::unique_ptr<Fovea>> Fovea::Open(const FoveaOptions& options) {
  std::unique_ptr<Fovea> fovea(new Fovea);
  ASSIGN_OR_RETURN(fovea->device_,
                   compute::Device::Create(options.device, options.n_threads, options.precision));
  fovea->device_->set_entry_limit_bytes(options.gpu_memory_bytes);
  // A memory is not made for a model that does not load.
  const memory::MemoryOptions write{.mode = storage::OpenMode::kCreate};
  if (options.read_only) {
    ASSIGN_OR_RETURN(fovea->memory_, OpenMemory(options.memory, storage::OpenMode::kRead));
  } else if (memory::Memory::Exists(options.memory)) {
    ASSIGN_OR_RETURN(fovea->memory_, memory::Memory::Open(options.memory, write));
  }

  const ModelHome home = ModelHome::FromEnvironment();
  const std::optional<std::string> model =
      options.model.empty() ? std::nullopt : std::optional(options.model.string());
  const std::optional<std::string> adapter =
      options.adapter.empty() ? std::nullopt : std::optional(options.adapter.string());
  ModelChoice choice;
  if (fovea->memory_ != nullptr && fovea->memory_->settings().has_value()) {
    ASSIGN_OR_RETURN(
        choice, model_home::RememberedModel(home, *fovea->memory_->settings(), model, adapter));
  } else {
    ASSIGN_OR_RETURN(
        choice, model_home::ChooseModel(home, model.value_or(model_home::DefaultModel()), adapter));
  }
  if (!choice.adapter_warning.empty()) fovea->warnings_.push_back(choice.adapter_warning);
  fovea->model_name_ = choice.model_name;
  fovea->adapter_name_ = choice.adapter_name;
  ASSIGN_OR_RETURN(fovea->model_, model::Transformer::Load(fovea->device_.get(),
                                                           model_home::ToLoadOptions(choice)));
  if (choice.adapter.has_value()) {
    std::string warning =
        model::AdapterBaseWarning(*choice.adapter, choice.model, fovea->model_->config());
    if (!warning.empty()) fovea->warnings_.push_back(std::move(warning));
  }
  if (options.check) RETURN_IF_ERROR(options.check(fovea->memory_.get(), *fovea->model_));
  if (fovea->memory_ == nullptr) {
    ASSIGN_OR_RETURN(fovea->memory_, memory::Memory::Open(options.memory, write));
  }
  ASSIGN_OR_RETURN(fovea->answerer_, Answerer::Create(fovea->device_.get(), fovea->model_.get(),
                                                      fovea->memory_.get()));
  return fovea;
}

Fovea::~Fovea() = default;

memory::IngestOptions Fovea::ingest_options() const {
  memory::IngestOptions options;
  options.model_name = model_name_;
  options.adapter_name = adapter_name_;
  return options;
}

absl::StatusOr<IngestSummary> Fovea::Ingest(const IngestRequest& request) {
  const auto begin = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(documents::CheckCollectionName(request.collection));
  IngestSummary summary;
  struct File {
    std::filesystem::path path;
    bool of_folder = false;
  };
  std::vector<File> files;
  for (const std::filesystem::path& path : request.paths) {
    std::error_code error;
    if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) {
      return absl::NotFoundError(StrCat(documents::PrintableName(path.native()),
                                        ": there is no such file or folder; nothing was ingested"));
    }
    ASSIGN_OR_RETURN(documents::FileList list,
                     documents::ListDocuments(path, /*recursive=*/true, &memory::Memory::Exists));
    const bool is_folder = std::filesystem::is_directory(path, error);
    summary.has_folders |= is_folder;
    for (auto& file : list.files) files.push_back({std::move(file), is_folder});
    for (const auto& left_out : list.left_out) {
      summary.AddSkipped(left_out.kind, documents::PrintableName(left_out.path.native()));
    }
  }

  memory::IngestOptions options = request.options;
  options.model_name = model_name_;
  options.adapter_name = adapter_name_;
  options.on_document = [&](const IngestedDocument& document) {
    summary.Add(document);
    if (request.options.on_document) request.options.on_document(document);
  };
  ASSIGN_OR_RETURN(const auto ingester,
                   memory::Ingester::Create(memory_.get(), model_.get(), options));
  for (const IngestRequest::Text& text : request.texts) {
    RETURN_IF_ERROR(options.progress.CheckCancelled());
    // The name is what names the text: the same name with a new text replaces it.
    const std::unique_ptr<documents::TextDocument> document =
        documents::MakeTextDocument(text.name, text.name, text.text);
    document->replaceable = !text.name.empty();
    RETURN_IF_ERROR(ingester->Add(*document, request.collection));
  }
  for (const File& file : files) {
    RETURN_IF_ERROR(options.progress.CheckCancelled());
    const auto add = [&](const std::string& source,
                         absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) {
      if (!document.ok()) {
        const std::string kind = documents::KindOfError(document.status());
        if (file.of_folder && !kind.empty()) {
          summary.AddSkipped(kind, source);
        } else {
          options.on_document(memory::FailedDocument("", source, document.status()));
        }
        return absl::OkStatus();
      }
      const std::string own = (*document)->collection;
      absl::Status added = ingester->Add(**document, own.empty() ? request.collection : own);
      if (!(*document)->warning.empty()) {
        summary.warnings.push_back({(*document)->source, (*document)->warning});
      }
      return added;
    };
    RETURN_IF_ERROR(documents::ReadDocuments(file.path, {}, add));
  }
  RETURN_IF_ERROR(ingester->Finish());
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return summary;
}

absl::StatusOr<std::vector<IngestedDocument>> Fovea::IngestFile(const std::filesystem::path& path,
                                                                const std::string& collection) {
  ASSIGN_OR_RETURN(IngestSummary summary,
                   Ingest({.paths = {path}, .texts = {}, .collection = collection, .options = {}}));
  return std::move(summary.documents);
}

absl::StatusOr<IngestedDocument> Fovea::IngestText(const std::string& title,
                                                   const std::string& text,
                                                   const std::string& collection) {
  ASSIGN_OR_RETURN(
      IngestSummary summary,
      Ingest({.paths = {}, .texts = {{title, text}}, .collection = collection, .options = {}}));
  if (summary.documents.size() != 1) {
    return absl::InternalError(
        StrCat("one text went in, ", summary.documents.size(), " results came out"));
  }
  IngestedDocument& document = summary.documents.front();
  if (document.status == memory::IngestStatus::kFailed) {
    return absl::InvalidArgumentError(document.error);
  }
  return std::move(document);
}

absl::StatusOr<Answer> Fovea::Ask(const std::string& question, const AskOptions& options,
                                  const StreamCallback& stream) {
  return answerer_->Ask(question, options, stream, Progress());
}

}  // namespace fovea::answer
