#include "memory/ingester.h"

#include <algorithm>
#include <ctime>
#include <deque>
#include <future>
#include <optional>
#include <span>
#include <system_error>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "memory/block_layout.h"
#include "memory/reference_encoder.h"
#include "memory/sealer.h"
#include "memory/token_stream.h"
#include "memory/windowing.h"

namespace fovea::memory {
namespace {

using storage::DocumentNumber;
using storage::DocumentRecord;
using storage::Mutation;
using storage::WindowLink;
using storage::WindowRecord;

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kIdDigits = 32;
// A commit holds about this many tokens at most also where nothing is encoded.
constexpr int64_t kCommitTokens = 65536;

struct HashOfHash128 {
  size_t operator()(const Hash128& hash) const { return static_cast<size_t>(hash.low); }
};

struct StoredRange {
  Slot slot_begin;
  uint32_t n_tokens;
};
// Windows of earlier versions of a document by content: what need not be encoded again. A text that
// repeats itself has several windows with the same content, each with slots of its own.
using WindowPool = absl::flat_hash_map<Hash128, std::vector<StoredRange>, HashOfHash128>;

Hash128 WindowHash(const WindowRecord& window) {
  // The length in front keeps (context, ids) pairs with the same concatenation apart.
  FastHasher hasher;
  const uint64_t n_context = window.context_ids.size();
  hasher.Update(AsBytes(std::span<const uint64_t>(&n_context, 1)));
  hasher.Update(AsBytes(std::span<const int32_t>(window.context_ids)));
  hasher.Update(AsBytes(std::span<const int32_t>(window.ids)));
  return hasher.Finish();
}

// A document on its way into the store.
struct OpenDocument {
  DocumentRecord record;
  IngestedDocument result;
  std::vector<DocumentNumber> replaced;  // versions that go when this one is complete
  absl::flat_hash_set<Slot> kept_slots;  // windows that this version uses
  bool all_windows_queued = false;
};

// A window that waits for its commit.
struct QueuedWindow {
  std::shared_ptr<OpenDocument> document;
  WindowLink link;
  std::optional<WindowRecord> window;  // unset: stored already
};

// A commit on its way to the disk while the next windows are encoded.
struct CommitInFlight {
  std::future<absl::Status> status;
  std::vector<DocumentRecord> records;                   // as committed
  std::vector<std::shared_ptr<OpenDocument>> completed;  // to be reported

  bool Concerns(const std::string& id, const std::string& source) const {
    return std::any_of(records.begin(), records.end(), [&](const DocumentRecord& record) {
      return record.id == id || record.source == source;
    });
  }
};

class IngesterImpl final : public Ingester {
 public:
  IngesterImpl(Memory* memory, model::Transformer* model, IngestOptions options)
      : memory_(memory), model_(model), options_(std::move(options)) {}

  absl::Status Initialize();
  absl::Status Add(documents::TextDocument& document, const std::string& collection) override;
  absl::Status Finish() override;

 private:
  absl::Status AgreeOnSettings();
  // id and size; an error of the document itself.
  static absl::StatusOr<std::pair<std::string, uint64_t>> HashText(
      documents::TextDocument& document, const Progress& progress);
  absl::Status AddToCollection(DocumentRecord* record, const std::string& collection);
  absl::Status QueueWindows(documents::TextDocument& document,
                            const std::shared_ptr<OpenDocument>& open, WindowPool pool,
                            absl::Status* document_error);
  absl::Status CollectPool(DocumentNumber number, WindowPool* pool);
  // Windows attend to the memory so far, so that none of another day can be used again.
  bool IsReference() const { return settings_.encoding == "reference"; }
  // Length of the next window of a stream.
  absl::StatusOr<int64_t> NextWindow(TokenStream* stream) const;
  absl::StatusOr<std::vector<model::EncodedWindow>> Encode(
      std::span<const model::WindowTokens> windows);
  // Encodes what is queued, waits for the commit before, and begins to commit it.
  absl::Status Flush();
  // Waits for the commit that is under way, takes note of it and reports what it completed. To be
  // called before anything else reads or changes what it may concern.
  absl::Status FinishCommit();
  void Fail(const documents::TextDocument& document, const absl::Status& status);
  void Report(const IngestedDocument& result) {
    if (options_.on_document) options_.on_document(result);
  }

  Memory* memory_;
  model::Transformer* model_;
  IngestOptions options_;
  storage::StoreSettings settings_;
  std::unique_ptr<BackgroundSealer> sealer_;
  storage::Counters counters_;
  // All stored documents, complete or not.
  absl::flat_hash_map<std::string, DocumentRecord> by_id_;
  absl::flat_hash_set<std::string> incomplete_ids_;             // few, of by_id_
  absl::flat_hash_map<std::string, std::string> id_by_source_;  // complete and replaceable ones
  std::deque<QueuedWindow> queue_;
  int64_t queued_new_tokens_ = 0;
  int64_t queued_tokens_ = 0;
  std::vector<std::shared_ptr<OpenDocument>>
      open_;  // with windows in the queue, or to be completed
  int64_t encoded_tokens_ = 0;
  std::optional<CommitInFlight> in_flight_;  // one at a time; destroying it waits
};

absl::Status IngesterImpl::AgreeOnSettings() {
  const auto& config = model_->config();
  if (!memory_->settings()) {
    storage::StoreSettings settings;
    settings.fingerprint = model_->fingerprint();
    settings.model = options_.model_name;
    settings.adapter = options_.adapter_name;
    settings.window = options_.window > 0 ? options_.window : model_->memory_config().window;
    settings.encoding =
        options_.encoding.empty() ? model_->memory_config().encoding : options_.encoding;
    const bool is_reference = settings.encoding == "reference";
    if (is_reference && options_.window <= 0) {
      settings.window = static_cast<int>(config.max_position_embeddings);
    }
    settings.overlap = options_.overlap >= 0 ? options_.overlap
                       : is_reference        ? 0
                                             : std::min(128, settings.window / 8);
    settings.index_spec = options_.index_spec.empty() ? "auto" : options_.index_spec;
    settings.n_mem_layers = static_cast<int>(model_->n_mem_layers());
    settings.n_kv_heads = static_cast<int>(config.n_kv_heads);
    settings.head_dim = static_cast<int>(config.head_dim);
    settings.entry_type = model_->memory_config().entry_type;
    if (settings.encoding != "window-local" && !is_reference) {
      return absl::InvalidArgumentError(
          StrCat("encoding \"", settings.encoding, "\": want \"window-local\" or \"reference\""));
    }
    if (is_reference && settings.n_mem_layers == 0) {
      return absl::FailedPreconditionError(
          "encoding \"reference\": the model has no memory layers; name some with --mem-layers");
    }
    if (is_reference && settings.overlap != 0) {
      return absl::InvalidArgumentError(StrCat(
          "overlap of ", settings.overlap,
          " tokens: windows of encoding \"reference\" have none, they attend to the memory"));
    }
    if (settings.window < 16 || settings.window > config.max_position_embeddings) {
      return absl::InvalidArgumentError(StrCat("window of ", settings.window, " tokens: want 16 … ",
                                               config.max_position_embeddings,
                                               " (the model's positions)"));
    }
    if (settings.overlap >= settings.window ||
        settings.window + settings.overlap > config.max_position_embeddings) {
      return absl::InvalidArgumentError(
          StrCat("overlap of ", settings.overlap, " tokens: want less than the window of ",
                 settings.window, ", and both together within the model's ",
                 config.max_position_embeddings, " positions"));
    }
    RETURN_IF_ERROR(index::ValidateSpec(settings.index_spec, settings.head_dim));
    RETURN_IF_ERROR(memory_->InitializeSettings(settings));
  }
  RETURN_IF_ERROR(memory_->CheckModel(*model_));
  settings_ = *memory_->settings();
  const auto contradiction = [this](std::string_view what, const auto& have, const auto& given) {
    return absl::FailedPreconditionError(StrCat(memory_->folder(), ": was made with ", what, " ",
                                                have, ", not ", given, "; leave ", what,
                                                " out, or start a new memory"));
  };
  if (options_.window > 0 && options_.window != settings_.window) {
    return contradiction("--window", settings_.window, options_.window);
  }
  if (options_.overlap >= 0 && options_.overlap != settings_.overlap) {
    return contradiction("--overlap", settings_.overlap, options_.overlap);
  }
  if (!options_.encoding.empty() && options_.encoding != settings_.encoding) {
    return contradiction("--encoding", settings_.encoding, options_.encoding);
  }
  if (!options_.index_spec.empty() && options_.index_spec != settings_.index_spec) {
    return absl::FailedPreconditionError(StrCat(
        memory_->folder(), ": has index \"", settings_.index_spec, "\", not \"",
        options_.index_spec, "\"; `fovea rebuild --index ", options_.index_spec, "` changes it"));
  }
  return absl::OkStatus();
}

absl::Status IngesterImpl::Initialize() {
  RETURN_IF_ERROR(AgreeOnSettings());
  ASSIGN_OR_RETURN(counters_, memory_->store().ReadCounters());
  RETURN_IF_ERROR(memory_->store().ForEachDocument([this](const DocumentRecord& document) {
    by_id_[document.id] = document;
    if (!document.complete) incomplete_ids_.insert(document.id);
    if (document.complete && document.replaceable) id_by_source_[document.source] = document.id;
    return absl::OkStatus();
  }));
  if (settings_.n_mem_layers > 0) {
    std::vector<uint64_t> damaged;
    for (const auto& segment : memory_->Current()->segments) {
      if (!segment->damage.empty()) damaged.push_back(segment->record.id);
    }
    ASSIGN_OR_RETURN(sealer_, BackgroundSealer::Start(&memory_->store(), memory_->index_folder(),
                                                      std::move(damaged)));
  }
  return absl::OkStatus();
}

void IngesterImpl::Fail(const documents::TextDocument& document, const absl::Status& status) {
  IngestedDocument result;
  result.title = document.title;
  result.source = document.source;
  result.status = IngestStatus::kFailed;
  result.error = std::string(status.message());
  Report(result);
}

absl::StatusOr<std::pair<std::string, uint64_t>> IngesterImpl::HashText(
    documents::TextDocument& document, const Progress& progress) {
  RETURN_IF_ERROR(document.Rewind());
  Sha256 hasher;
  uint64_t size_bytes = 0;
  std::string piece;
  while (true) {
    piece.clear();
    RETURN_IF_ERROR(document.Read(kReadBytes, &piece));
    if (piece.empty()) break;
    hasher.Update(piece);
    size_bytes += piece.size();
    RETURN_IF_ERROR(progress.CheckCancelled());
  }
  if (size_bytes == 0) {
    return absl::InvalidArgumentError(StrCat(document.source, ": empty: nothing to store"));
  }
  return std::make_pair(hasher.FinishHex().substr(0, kIdDigits), size_bytes);
}

absl::Status IngesterImpl::AddToCollection(DocumentRecord* record, const std::string& collection) {
  auto& in = record->collections;
  if (std::find(in.begin(), in.end(), collection) != in.end()) return absl::OkStatus();
  in.push_back(collection);
  Mutation mutation;
  mutation.PutDocument(*record);
  return memory_->store().Commit(std::move(mutation));
}

absl::Status IngesterImpl::CollectPool(DocumentNumber number, WindowPool* pool) {
  if (IsReference()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<WindowLink> links, memory_->store().Links(number));
  for (const WindowLink& link : links) {
    absl::StatusOr<WindowRecord> window = memory_->store().GetWindow(link.slot_begin);
    // A damaged window is simply encoded again.
    if (absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status())) continue;
    RETURN_IF_ERROR(window.status());
    std::vector<StoredRange>& ranges = (*pool)[window->content_hash];
    // Two versions of a document may link the same window.
    const bool known = std::any_of(ranges.begin(), ranges.end(), [&](const StoredRange& range) {
      return range.slot_begin == link.slot_begin;
    });
    if (!known) ranges.push_back({link.slot_begin, link.n_tokens});
  }
  return absl::OkStatus();
}

absl::Status IngesterImpl::Add(documents::TextDocument& document, const std::string& collection) {
  auto hashed = HashText(document, options_.progress);
  if (absl::IsCancelled(hashed.status())) {
    RETURN_IF_ERROR(FinishCommit());
    return hashed.status();
  }
  if (!hashed.ok()) {
    Fail(document, hashed.status());
    return absl::OkStatus();
  }
  const auto& [id, size_bytes] = *hashed;
  const std::string chosen = document.collection.empty() ? collection : document.collection;

  // The same text or the same source may still wait for its commit.
  for (const auto& open : open_) {
    if (open->record.id == id || open->record.source == document.source) {
      RETURN_IF_ERROR(Flush());
      break;
    }
  }
  // Known documents are read and changed below, next to the store's other commits.
  if (in_flight_ && (in_flight_->Concerns(id, document.source) || by_id_.contains(id) ||
                     id_by_source_.contains(document.source))) {
    RETURN_IF_ERROR(FinishCommit());
  }
  std::vector<DocumentNumber> replaced;
  if (document.replaceable) {
    const auto source = id_by_source_.find(document.source);
    if (source != id_by_source_.end() && source->second != id) {
      replaced.push_back(by_id_.at(source->second).number);
    }
  }
  if (const auto half = by_id_.find(id);
      IsReference() && half != by_id_.end() && !half->second.complete) {
    RETURN_IF_ERROR(memory_->DeleteDocuments({half->second.number}));
    incomplete_ids_.erase(id);
    by_id_.erase(half);
  }
  const auto known = by_id_.find(id);
  if (known != by_id_.end() && known->second.complete) {
    RETURN_IF_ERROR(AddToCollection(&known->second, chosen));
    IngestedDocument result;
    result.id = id;
    result.title = known->second.title;
    result.source = document.source;
    result.tokens = known->second.n_tokens;
    result.windows = known->second.n_windows;
    result.status = replaced.empty() ? IngestStatus::kUnchanged : IngestStatus::kReplaced;
    if (!replaced.empty()) {
      RETURN_IF_ERROR(memory_->DeleteDocuments(replaced));
      by_id_.erase(id_by_source_.at(document.source));
      // From now on this text is what its source holds.
      known->second.source = document.source;
      known->second.replaceable = true;
      Mutation mutation;
      mutation.PutDocument(known->second);
      RETURN_IF_ERROR(memory_->store().Commit(std::move(mutation)));
      id_by_source_[document.source] = id;
    }
    Report(result);
    return absl::OkStatus();
  }

  auto open = std::make_shared<OpenDocument>();
  WindowPool pool;
  DocumentRecord& record = open->record;
  if (known != by_id_.end()) {
    // Interrupted before it was complete: go on under the same number.
    record = known->second;
    RETURN_IF_ERROR(CollectPool(record.number, &pool));
  } else {
    record.number = counters_.next_document++;
  }
  for (DocumentNumber number : replaced) RETURN_IF_ERROR(CollectPool(number, &pool));
  // What earlier interrupted versions of this source left behind is used up and goes, too.
  for (const std::string& other_id : incomplete_ids_) {
    const DocumentRecord& other = by_id_.at(other_id);
    if (other_id != id && document.replaceable && other.source == document.source) {
      RETURN_IF_ERROR(CollectPool(other.number, &pool));
      replaced.push_back(other.number);
    }
  }
  record.id = id;
  record.title = document.title;
  record.source = document.source;
  record.replaceable = document.replaceable;
  record.collections = {chosen};
  record.size_bytes = size_bytes;
  record.n_tokens = 0;
  record.n_windows = 0;
  record.complete = false;
  record.ingested_unix_s = static_cast<int64_t>(std::time(nullptr));
  open->result.id = id;
  open->result.title = record.title;
  open->result.source = record.source;
  open->result.status =
      id_by_source_.contains(document.source) && document.replaceable && !replaced.empty()
          ? IngestStatus::kReplaced
          : IngestStatus::kAdded;
  open->replaced = std::move(replaced);
  open_.push_back(open);

  absl::Status document_error;
  RETURN_IF_ERROR(QueueWindows(document, open, std::move(pool), &document_error));
  if (!document_error.ok()) {
    RETURN_IF_ERROR(FinishCommit());
    // Its windows so far stay queued under a document that never becomes complete: they are
    // dropped here, and what was committed is taken back.
    std::erase_if(queue_, [&](const QueuedWindow& queued) { return queued.document == open; });
    queued_tokens_ = 0;
    queued_new_tokens_ = 0;
    for (const QueuedWindow& queued : queue_) {
      queued_tokens_ += queued.link.n_tokens;
      if (queued.window) queued_new_tokens_ += queued.link.n_tokens;
    }
    std::erase(open_, open);
    if (by_id_.contains(id)) {
      RETURN_IF_ERROR(memory_->DeleteDocuments({record.number}));
      by_id_.erase(id);
      incomplete_ids_.erase(id);
    }
    Fail(document, document_error);
    return absl::OkStatus();
  }
  open->all_windows_queued = true;
  if (queued_new_tokens_ >= options_.encode_batch_tokens || queued_tokens_ >= kCommitTokens) {
    RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> IngesterImpl::NextWindow(TokenStream* stream) const {
  const int64_t window = settings_.window;
  if (IsReference()) {
    const int64_t last_context_length = model_->memory_config().last_context_length;
    RETURN_IF_ERROR(stream->Fill(window + last_context_length));
    return CutReferenceWindow(static_cast<int64_t>(stream->tokens().ids.size()), window,
                              last_context_length);
  }
  RETURN_IF_ERROR(stream->Fill(window + 1));
  const TokenSpan tokens = stream->tokens();
  const bool is_last = stream->at_end() && static_cast<int64_t>(tokens.ids.size()) <= window;
  return CutWindow(tokens, window, is_last);
}

absl::StatusOr<std::vector<model::EncodedWindow>> IngesterImpl::Encode(
    std::span<const model::WindowTokens> windows) {
  if (!IsReference()) return model_->Encode(windows);
  RETURN_IF_ERROR(FinishCommit());  // they attend to what is stored
  IngestView view;
  for (const auto& open : open_) {
    view.with.push_back(open->record.number);
    view.without.insert(view.without.end(), open->replaced.begin(), open->replaced.end());
  }
  return EncodeAttending(memory_, model_, view, windows, options_.progress);
}

absl::Status IngesterImpl::QueueWindows(documents::TextDocument& document,
                                        const std::shared_ptr<OpenDocument>& open, WindowPool pool,
                                        absl::Status* document_error) {
  *document_error = document.Rewind();
  if (!document_error->ok()) return absl::OkStatus();
  TokenStream stream(&document, &model_->tokenizer());
  std::vector<int32_t> context;
  uint64_t byte_begin = 0;
  while (true) {
    const absl::StatusOr<int64_t> next_window = NextWindow(&stream);
    *document_error = next_window.status();
    if (!document_error->ok()) return absl::OkStatus();
    const TokenSpan tokens = stream.tokens();
    if (tokens.ids.empty()) break;
    const int64_t n_tokens = *next_window;

    WindowRecord window;
    window.context_ids = context;
    window.ids.assign(tokens.ids.begin(), tokens.ids.begin() + n_tokens);
    window.ends.assign(tokens.ends.begin(), tokens.ends.begin() + n_tokens);
    const uint32_t n_bytes = window.ends.back();
    window.text = std::string(tokens.text.substr(0, n_bytes));
    window.passage_begins = CutPassages({window.ids, window.ends, 0, window.text});
    window.content_hash = WindowHash(window);

    QueuedWindow queued;
    queued.document = open;
    queued.link.document = open->record.number;
    queued.link.ordinal = open->record.n_windows;
    queued.link.n_tokens = static_cast<uint32_t>(n_tokens);
    queued.link.byte_begin = byte_begin;
    queued.link.n_bytes = n_bytes;
    bool is_new = false;
    if (const auto stored = pool.find(window.content_hash);
        stored != pool.end() && !stored->second.empty()) {
      queued.link.slot_begin = stored->second.back().slot_begin;
      stored->second.pop_back();
    } else {
      queued.link.slot_begin = counters_.next_slot;
      window.slot_begin = counters_.next_slot;
      counters_.next_slot += static_cast<uint64_t>(n_tokens);
      queued_new_tokens_ += n_tokens;
      open->result.encoded_windows += 1;
      open->result.encoded_tokens += static_cast<uint64_t>(n_tokens);
      is_new = true;
    }
    open->kept_slots.insert(queued.link.slot_begin);
    open->record.n_tokens += static_cast<uint64_t>(n_tokens);
    open->record.n_windows += 1;
    byte_begin += n_bytes;
    queued_tokens_ += n_tokens;

    // The next window sees the last tokens of this one (and of those before it) as its context.
    context.insert(context.end(), window.ids.begin(), window.ids.end());
    const auto overlap = static_cast<size_t>(settings_.overlap);
    if (context.size() > overlap) context.erase(context.begin(), context.end() - overlap);
    if (is_new) queued.window = std::move(window);
    queue_.push_back(std::move(queued));
    stream.Consume(n_tokens);
    if (queued_new_tokens_ >= options_.encode_batch_tokens || queued_tokens_ >= kCommitTokens) {
      RETURN_IF_ERROR(Flush());
    }
  }
  if (byte_begin != open->record.size_bytes) {
    *document_error = absl::AbortedError(
        StrCat(document.source, ": changed while it was read (", open->record.size_bytes,
               " bytes of text first, then ", byte_begin, "); ingest it again"));
  }
  return absl::OkStatus();
}

absl::Status IngesterImpl::Flush() {
  if (queue_.empty() && open_.empty()) return absl::OkStatus();
  std::vector<model::WindowTokens> windows;
  for (const QueuedWindow& queued : queue_) {
    if (queued.window) windows.push_back({queued.window->context_ids, queued.window->ids});
  }
  std::vector<model::EncodedWindow> encoded;
  if (!windows.empty() && settings_.n_mem_layers > 0) {
    ASSIGN_OR_RETURN(encoded, Encode(windows));
  }

  Mutation mutation;
  size_t next_encoded = 0;
  for (const QueuedWindow& queued : queue_) {
    mutation.PutLink(queued.link);
    if (!queued.window) continue;
    mutation.PutWindow(*queued.window);
    if (settings_.n_mem_layers == 0) continue;
    const model::EncodedWindow& window = encoded[next_encoded++];
    for (int layer = 0; layer < settings_.n_mem_layers; ++layer) {
      mutation.PutBlock(
          queued.window->slot_begin, layer,
          ToBlock(window, layer, settings_.n_kv_heads, settings_.head_dim, settings_.entry_type));
    }
    mutation.PutQuerySample(queued.window->slot_begin, ToQuerySample(window));
    encoded_tokens_ += window.n_tokens;
  }
  // In order: the commit before may be what wrote the links that are read here.
  RETURN_IF_ERROR(FinishCommit());
  CommitInFlight commit;
  std::vector<std::shared_ptr<OpenDocument>> still_open;
  for (const auto& open : open_) {
    open->record.complete = open->all_windows_queued;
    mutation.PutDocument(open->record);
    commit.records.push_back(open->record);
    if (!open->record.complete) {
      still_open.push_back(open);
      continue;
    }
    commit.completed.push_back(open);
    for (DocumentNumber number : open->replaced) {
      ASSIGN_OR_RETURN(const std::vector<WindowLink> links, memory_->store().Links(number));
      mutation.DeleteDocument(number);
      for (const WindowLink& link : links) {
        if (!open->kept_slots.contains(link.slot_begin)) mutation.DeleteWindow(link.slot_begin);
      }
    }
  }
  mutation.PutNextSlot(counters_.next_slot);
  mutation.PutNextDocumentNumber(counters_.next_document);
  const auto write = [store = &memory_->store(),
                      shared = std::make_shared<Mutation>(std::move(mutation))] {
    return store->Commit(std::move(*shared));
  };
  try {
    commit.status = std::async(std::launch::async, write);
  } catch (const std::system_error&) {  // no thread to be had: then without one
    commit.status = std::async(std::launch::deferred, write);
  }
  in_flight_ = std::move(commit);
  open_ = std::move(still_open);
  queue_.clear();
  queued_tokens_ = 0;
  queued_new_tokens_ = 0;
  const absl::Status cancelled = options_.progress.Report({"encode", encoded_tokens_, 0, "tokens"});
  // What is stored is also reported.
  if (!cancelled.ok()) RETURN_IF_ERROR(FinishCommit());
  return cancelled;
}

absl::Status IngesterImpl::FinishCommit() {
  if (!in_flight_) return absl::OkStatus();
  CommitInFlight commit = *std::move(in_flight_);
  in_flight_.reset();
  RETURN_IF_ERROR(commit.status.get());
  if (sealer_ != nullptr) sealer_->Notify();
  for (const DocumentRecord& record : commit.records) {
    by_id_[record.id] = record;
    if (record.complete) {
      incomplete_ids_.erase(record.id);
    } else {
      incomplete_ids_.insert(record.id);
    }
  }
  for (const auto& open : commit.completed) {
    for (DocumentNumber number : open->replaced) {
      absl::erase_if(by_id_, [number](const auto& entry) { return entry.second.number == number; });
      absl::erase_if(incomplete_ids_,
                     [this](const auto& other) { return !by_id_.contains(other); });
    }
    if (open->record.replaceable) id_by_source_[open->record.source] = open->record.id;
    open->result.tokens = open->record.n_tokens;
    open->result.windows = open->record.n_windows;
    Report(open->result);
  }
  return absl::OkStatus();
}

absl::Status IngesterImpl::Finish() {
  RETURN_IF_ERROR(Flush());
  RETURN_IF_ERROR(FinishCommit());
  RETURN_IF_ERROR(memory_->UpdateTextIndex(options_.progress));
  if (sealer_ != nullptr) RETURN_IF_ERROR(sealer_->WaitUntilIdle(options_.progress));
  RETURN_IF_ERROR(memory_->Publish());
  return memory_->CompactIfWorthwhile();
}

}  // namespace

std::string_view IngestStatusName(IngestStatus status) {
  switch (status) {
    case IngestStatus::kAdded:
      return "added";
    case IngestStatus::kUnchanged:
      return "unchanged";
    case IngestStatus::kReplaced:
      return "replaced";
    case IngestStatus::kFailed:
      return "failed";
  }
  return "failed";
}

absl::StatusOr<std::unique_ptr<Ingester>> Ingester::Create(Memory* memory,
                                                           model::Transformer* model,
                                                           const IngestOptions& options) {
  auto ingester = std::make_unique<IngesterImpl>(memory, model, options);
  RETURN_IF_ERROR(ingester->Initialize());
  return ingester;
}

}  // namespace fovea::memory
