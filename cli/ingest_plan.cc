#include "cli/ingest_plan.h"

namespace fovea::cli {

using memory::IngestedDocument;
using memory::IngestStatus;

IngestPlan::IngestPlan(const memory::Memory* memory) {
  if (memory == nullptr) return;
  for (const storage::DocumentRecord& document : memory->Current()->documents) {
    table_.Load(document);
  }
}

absl::StatusOr<IngestedDocument> IngestPlan::Add(documents::TextDocument& document,
                                                 const std::string& collection,
                                                 const Progress& progress) {
  ASSIGN_OR_RETURN(const memory::TextIdentity identity, memory::IdentifyText(document, progress));
  RETURN_IF_ERROR(memory::SourceTable::CheckOneText(seen_, document.source, identity.id));
  const storage::SourceReference reference = {
      .source = document.source,
      .collection = document.collection.empty() ? collection : document.collection,
      .title = document.title,
      .replaceable = document.replaceable};
  const auto* holder =
      reference.replaceable ? table_.Holder(reference.source, reference.collection) : nullptr;
  const auto* stored = table_.Find(identity.id);
  IngestedDocument result;
  result.id = identity.id;
  result.title = reference.title;
  result.source = reference.source;
  result.status = holder != nullptr && holder->id != identity.id ? IngestStatus::kReplaced
                  : stored != nullptr                            ? IngestStatus::kUnchanged
                                                                 : IngestStatus::kAdded;
  result.is_new_source = result.status == IngestStatus::kUnchanged &&
                         memory::SourceTable::IsNewSource(*stored, reference);
  if (stored != nullptr) {
    result.tokens = stored->n_tokens;
    result.windows = stored->n_windows;
  } else {
    storage::DocumentRecord record;
    record.id = identity.id;
    table_.Insert(std::move(record));
  }
  table_.Refer(identity.id, reference, !document.collection.empty());
  seen_[reference.source] = identity.id;
  return result;
}

std::vector<IngestedDocument> IngestPlan::RemoveSources(
    absl::FunctionRef<bool(const std::string&)> is_gone) {
  std::vector<IngestedDocument> results;
  for (const auto& [document, reference] : table_.RemoveUnseen(seen_, is_gone)) {
    IngestedDocument& result = results.emplace_back();
    result.id = document.id;
    result.title = reference.title;
    result.source = reference.source;
    result.status = IngestStatus::kRemoved;
  }
  return results;
}

}  // namespace fovea::cli
