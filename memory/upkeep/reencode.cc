#include "memory/upkeep/reencode.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/file.h"
#include "documents/text_document.h"
#include "memory/ingest/ingester.h"
#include "memory/versions.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using storage::DocumentRecord;

// A stored document as the ingester reads documents: its windows' texts one after the other, one
// window in main memory at a time.
class StoredTextDocument final : public documents::TextDocument {
 public:
  StoredTextDocument(const storage::DocumentStore* store, const DocumentRecord& record,
                     std::vector<storage::WindowLink> links)
      : store_(store), size_bytes_(record.size_bytes), links_(std::move(links)) {
    title = record.title();
    source = record.source();
    // Only once all documents are there does a source name one of them again (RestoreRecords).
    replaceable = false;
  }

  absl::Status Read(size_t max_bytes, std::string* out) override {
    while (unread_.size() < max_bytes && next_link_ < links_.size()) {
      ASSIGN_OR_RETURN(const storage::WindowRecord window,
                       store_->GetWindow(links_[next_link_].slot_begin));
      unread_ += window.text;
      ++next_link_;
    }
    size_t n_bytes = std::min(max_bytes, unread_.size());
    // Windows end between tokens, which may be inside of a character; pieces must not.
    while (n_bytes > 0 && n_bytes < unread_.size() &&
           (static_cast<unsigned char>(unread_[n_bytes]) & 0xC0) == 0x80) {
      --n_bytes;
    }
    out->append(unread_, 0, n_bytes);
    unread_.erase(0, n_bytes);
    return absl::OkStatus();
  }

  absl::Status Rewind() override {
    next_link_ = 0;
    unread_.clear();
    return absl::OkStatus();
  }

  uint64_t size_bytes() const override { return size_bytes_; }

 private:
  const storage::DocumentStore* store_;
  const uint64_t size_bytes_;
  const std::vector<storage::WindowLink> links_;
  size_t next_link_ = 0;
  std::string unread_;
};

// Whether what an interrupted call left was encoded as this call would.
bool SameEncoding(const storage::StoreSettings& a, const storage::StoreSettings& b) {
  return a.fingerprint == b.fingerprint && a.window == b.window && a.overlap == b.overlap &&
         a.encoding == b.encoding && a.entry_type == b.entry_type;
}

// The next version, open for writing: what an interrupted call left of it where that fits, else an
// empty one.
absl::StatusOr<std::unique_ptr<Memory>> OpenNextVersion(const fs::path& folder,
                                                        const std::string& version,
                                                        const storage::StoreSettings& wanted) {
  const MemoryOptions options = [&] {
    MemoryOptions o;
    o.mode = storage::OpenMode::kCreate;
    o.version = version;
    return o;
  }();
  RETURN_IF_ERROR(MarkFilling(folder, version));
  absl::StatusOr<std::unique_ptr<Memory>> memory = Memory::Open(folder, options);
  const bool unusable =
      absl::IsDataLoss(memory.status()) ||
      (memory.ok() && (*memory)->settings() && !SameEncoding(*(*memory)->settings(), wanted));
  if (!unusable) return memory;
  if (memory.ok()) memory->reset();
  RETURN_IF_ERROR(RemoveVersion(folder, version));
  RETURN_IF_ERROR(MarkFilling(folder, version));
  return Memory::Open(folder, options);
}

// The settings that the next version gets.
storage::StoreSettings WantedSettings(const storage::StoreSettings& old,
                                      const model::Transformer& model,
                                      const ReencodeOptions& options) {
  storage::StoreSettings wanted = old;
  wanted.fingerprint = model.fingerprint();
  wanted.model = options.model_name;
  wanted.adapter = options.adapter_name;
  wanted.entry_type = model.memory_config().entry_type;
  if (!options.index_spec.empty()) wanted.index_spec = options.index_spec;
  const int64_t positions = model.config().max_position_embeddings;
  if (wanted.window + wanted.overlap > positions) {
    wanted.window = static_cast<int>(
        std::min<int64_t>(model.memory_config().window, positions - positions / 8));
    wanted.overlap = static_cast<int>(std::min<int64_t>(wanted.overlap, positions - wanted.window));
  }
  return wanted;
}

// Removes what an interrupted call encoded and the memory has no more.
absl::Status RemoveDeletedDocuments(const std::vector<DocumentRecord>& kept, Memory* memory) {
  absl::flat_hash_set<std::string> ids;
  for (const DocumentRecord& document : kept) ids.insert(document.id);
  std::vector<storage::DocumentNumber> deleted;
  RETURN_IF_ERROR(memory->store().ForEachDocument([&](const DocumentRecord& document) {
    if (!document.complete || !ids.contains(document.id)) deleted.push_back(document.number);
    return absl::OkStatus();
  }));
  return deleted.empty() ? absl::OkStatus() : memory->DeleteDocuments(deleted);
}

// Gives the documents of `to` what the ingester does not know: times, and the sources as they were.
absl::Status RestoreRecords(const std::vector<DocumentRecord>& from, Memory* to) {
  absl::flat_hash_map<std::string, DocumentRecord> by_id;
  RETURN_IF_ERROR(to->store().ForEachDocument([&](const DocumentRecord& document) {
    if (document.complete) by_id[document.id] = document;
    return absl::OkStatus();
  }));
  constexpr size_t kCommitBytes = size_t{16} << 20;
  storage::Mutation mutation;
  for (const DocumentRecord& old : from) {
    const auto found = by_id.find(old.id);
    if (found == by_id.end()) {
      return absl::InternalError(StrCat("document ", old.id, " (", old.source(),
                                        ") is missing from the new version: run it again"));
    }
    DocumentRecord& document = found->second;
    document.sources = old.sources;
    document.ingested_unix_s = old.ingested_unix_s;
    mutation.PutDocument(document);
    if (mutation.size_bytes() >= kCommitBytes) {
      RETURN_IF_ERROR(to->store().Commit(std::move(mutation)));
      mutation = storage::Mutation();
    }
  }
  return to->store().Commit(std::move(mutation));
}

}  // namespace

absl::StatusOr<ReencodeResult> Reencode(const fs::path& folder, model::Transformer* model,
                                        const ReencodeOptions& options) {
  MemoryOptions old_options;
  // For writing, so that nobody changes it meanwhile.
  old_options.mode = storage::OpenMode::kWrite;
  ASSIGN_OR_RETURN(std::unique_ptr<Memory> old, Memory::Open(folder, old_options));
  if (!old->settings()) {
    return absl::FailedPreconditionError(
        StrCat(folder, ": nothing was ingested yet, so there is nothing to encode again"));
  }
  ASSIGN_OR_RETURN(const std::string version, CurrentVersion(folder));
  ASSIGN_OR_RETURN(const std::string next_version, NextVersion(folder, version));
  RemoveOtherVersions(folder, version, next_version);

  const storage::StoreSettings wanted = WantedSettings(*old->settings(), *model, options);
  ASSIGN_OR_RETURN(std::unique_ptr<Memory> next, OpenNextVersion(folder, next_version, wanted));
  if (next->settings()) {
    // Names and the index specification may have changed since the interrupted call.
    storage::StoreSettings settings = *next->settings();
    settings.model = wanted.model;
    settings.adapter = wanted.adapter;
    settings.index_spec = wanted.index_spec;
    RETURN_IF_ERROR(next->InitializeSettings(settings));
  }

  ReencodeResult result;
  absl::Status failure;
  IngestOptions ingest;
  ingest.model_name = wanted.model;
  ingest.adapter_name = wanted.adapter;
  ingest.window = wanted.window;
  ingest.overlap = wanted.overlap;
  ingest.encoding = wanted.encoding;
  ingest.index_spec = wanted.index_spec;
  ingest.any_collection_name = true;
  ingest.progress = options.progress;
  ingest.on_document = [&](const IngestedDocument& document) {
    if (document.status == IngestStatus::kFailed && failure.ok()) {
      failure = absl::DataLossError(
          StrCat(folder, ": a stored text cannot be encoded again: ", document.source, ": ",
                 document.error, "; `fovea verify` names what is damaged. Nothing was changed"));
    }
  };
  ASSIGN_OR_RETURN(std::unique_ptr<Ingester> ingester, Ingester::Create(next.get(), model, ingest));
  std::shared_ptr<const Generation> view = old->Current();
  for (const DocumentRecord& record : view->documents) {
    ASSIGN_OR_RETURN(std::vector<storage::WindowLink> links, old->store().Links(record.number));
    StoredTextDocument document(&old->store(), record, std::move(links));
    RETURN_IF_ERROR(ingester->Add(document, record.sources.at(0).collection));
    RETURN_IF_ERROR(failure);
  }
  RETURN_IF_ERROR(ingester->Finish());
  RETURN_IF_ERROR(failure);
  ingester.reset();
  RETURN_IF_ERROR(RemoveDeletedDocuments(view->documents, next.get()));
  RETURN_IF_ERROR(RestoreRecords(view->documents, next.get()));
  RETURN_IF_ERROR(next->Publish());
  result.documents = next->Current()->documents.size();
  result.tokens = next->Current()->n_tokens;

  // The commit point.
  RETURN_IF_ERROR(MakeCurrent(folder, next_version));
  // Views hold their stores open, which must not outlive the folders.
  view.reset();
  next.reset();
  old.reset();
  RemoveOtherVersions(folder, next_version);
  return result;
}

}  // namespace fovea::memory
