#include "eval/subject.h"

#include <utility>

#include "base/hash.h"
#include "base/strings.h"
#include "documents/text_document.h"
#include "memory/ingest/ingester.h"

namespace fovea::eval {

absl::StatusOr<std::unique_ptr<TestMemory>> TestMemory::Open(const Subject* subject,
                                                             const std::string& name) {
  std::unique_ptr<TestMemory> result(new TestMemory(subject));
  ASSIGN_OR_RETURN(result->memory_, memory::Memory::Open(subject->folder / name,
                                                         {.mode = storage::OpenMode::kCreate}));
  const auto create =
      subject->create_answerer ? subject->create_answerer : &answer::Answerer::Create;
  ASSIGN_OR_RETURN(result->answerer_,
                   create(subject->device, subject->model, result->memory_.get()));
  return result;
}

absl::Status TestMemory::Fill(std::span<const Document> documents) {
  ids_.clear();
  std::string failure;
  memory::IngestOptions options;
  options.model_name = subject_.model_name;
  options.adapter_name = subject_.adapter_name;
  options.window = subject_.window;
  options.overlap = subject_.overlap;
  options.index_spec = subject_.index_spec;
  options.progress = subject_.progress;
  options.on_document = [&](const memory::IngestedDocument& document) {
    if (document.status == memory::IngestStatus::kRemoved) return;
    if (document.status == memory::IngestStatus::kFailed && failure.empty()) {
      failure = StrCat(document.source, ": ", document.error);
    }
    ids_[document.source] = document.id;
  };
  ASSIGN_OR_RETURN(const auto ingester,
                   memory::Ingester::Create(memory_.get(), subject_.model, options));
  for (const Document& document : documents) {
    const auto text = documents::MakeTextDocument(document.source, document.source, document.text);
    RETURN_IF_ERROR(ingester->Add(*text, document.collection));
  }
  // Of an earlier run, or another trial.
  RETURN_IF_ERROR(ingester->RemoveSources([](const std::string&) { return true; }));
  RETURN_IF_ERROR(ingester->Finish());
  if (!failure.empty()) return absl::InvalidArgumentError(failure);
  if (ids_.size() != documents.size()) {
    return absl::InvalidArgumentError(StrCat(documents.size(), " documents have ", ids_.size(),
                                             " names: each wants one of its own"));
  }
  return absl::OkStatus();
}

absl::StatusOr<answer::Answer> TestMemory::Ask(const answer::Request& request) const {
  answer::Request own = request;
  // Only to be cancelled: an evaluation reports whole questions.
  own.progress = subject_.progress;
  ASSIGN_OR_RETURN(answer::Answer answer, answerer_->Run(own));
  if (answer.finish_reason == "cancelled") return absl::CancelledError("cancelled");
  return answer;
}

std::string TestMemory::TextHash() const {
  Sha256 hash;
  for (const auto& [source, id] : ids_) hash.Update(id);
  return hash.FinishHex();
}

}  // namespace fovea::eval
