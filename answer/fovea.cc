#include "answer/fovea.h"

#include <utility>

#include "documents/file_kind.h"
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
  memory::MemoryOptions memory_options;
  memory_options.mode = options.read_only ? storage::OpenMode::kRead : storage::OpenMode::kCreate;
  ASSIGN_OR_RETURN(fovea->memory_, memory::Memory::Open(options.memory, memory_options));

  const ModelHome home = ModelHome::FromEnvironment();
  const std::optional<std::string> model =
      options.model.empty() ? std::nullopt : std::optional(options.model.string());
  const std::optional<std::string> adapter =
      options.adapter.empty() ? std::nullopt : std::optional(options.adapter.string());
  ModelChoice choice;
  if (fovea->memory_->settings().has_value()) {
    ASSIGN_OR_RETURN(
        choice, model_home::RememberedModel(home, *fovea->memory_->settings(), model, adapter));
  } else if (options.read_only) {
    return absl::FailedPreconditionError(
        StrCat(options.memory, ": nothing was ingested yet; open it without read_only first"));
  } else {
    ASSIGN_OR_RETURN(choice,
                     model_home::ChooseModel(
                         home, model.value_or(std::string(model_home::kDefaultModel)), adapter));
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

absl::StatusOr<std::unique_ptr<memory::Ingester>> Fovea::StartIngest(
    std::vector<IngestedDocument>* results) {
  memory::IngestOptions options = ingest_options();
  options.on_document = [results](const IngestedDocument& document) {
    results->push_back(document);
  };
  return memory::Ingester::Create(memory_.get(), model_.get(), options);
}

absl::StatusOr<std::vector<IngestedDocument>> Fovea::IngestFile(const std::filesystem::path& path,
                                                                const std::string& collection) {
  ASSIGN_OR_RETURN(const documents::FileList list,
                   documents::ListDocuments(path, /*recursive=*/true, &memory::Memory::Exists));
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  std::vector<IngestedDocument> results;
  ASSIGN_OR_RETURN(const auto ingester, StartIngest(&results));
  const auto add = [&](const std::string& source,
                       absl::StatusOr<std::unique_ptr<documents::TextDocument>> document) {
    if (document.ok()) {
      const std::string& own = (*document)->collection;
      return ingester->Add(**document, own.empty() ? collection : own);
    }
    if (is_folder && !documents::KindOfError(document.status()).empty()) return absl::OkStatus();
    IngestedDocument failed;
    failed.source = source;
    failed.status = memory::IngestStatus::kFailed;
    failed.error = std::string(document.status().message());
    results.push_back(std::move(failed));
    return absl::OkStatus();
  };
  for (const std::filesystem::path& file : list.files) {
    RETURN_IF_ERROR(documents::ReadDocuments(file, {}, add));
  }
  RETURN_IF_ERROR(ingester->Finish());
  return results;
}

absl::StatusOr<IngestedDocument> Fovea::IngestText(const std::string& title,
                                                   const std::string& text,
                                                   const std::string& collection) {
  // The title is what names the text: the same title with new text replaces it.
  const std::unique_ptr<documents::TextDocument> document =
      documents::MakeTextDocument(title, title, text);
  document->replaceable = !title.empty();
  std::vector<IngestedDocument> results;
  ASSIGN_OR_RETURN(const auto ingester, StartIngest(&results));
  RETURN_IF_ERROR(ingester->Add(*document, collection));
  RETURN_IF_ERROR(ingester->Finish());
  if (results.size() != 1) {
    return absl::InternalError(StrCat("one text went in, ", results.size(), " results came out"));
  }
  if (results.front().status == memory::IngestStatus::kFailed) {
    return absl::InvalidArgumentError(results.front().error);
  }
  return std::move(results.front());
}

absl::StatusOr<Answer> Fovea::Ask(const std::string& question, const AskOptions& options,
                                  const StreamCallback& stream) {
  return answerer_->Ask(question, options, stream, Progress());
}

}  // namespace fovea::answer
