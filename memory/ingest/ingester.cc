#include "memory/ingest/ingester.h"

#include <algorithm>
#include <ctime>
#include <deque>
#include <future>
#include <optional>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/processors.h"
#include "documents/names.h"
#include "memory/ingest/arrival.h"
#include "memory/ingest/background_commit.h"
#include "memory/ingest/background_task.h"
#include "memory/ingest/ingest_settings.h"
#include "memory/ingest/reference_encoder.h"
#include "memory/ingest/source_table.h"
#include "memory/ingest/text_index_filler.h"
#include "memory/ingest/token_stream.h"
#include "memory/ingest/window_batch.h"
#include "memory/ingest/window_pool.h"
#include "memory/ingest/windowing.h"
#include "memory/segments/sealer.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using storage::DocumentNumber;
using storage::DocumentRecord;
using storage::Mutation;
using storage::WindowLink;
using storage::WindowRecord;

// A commit holds about this many tokens at most also where nothing is encoded.
constexpr int64_t kCommitTokens = 65536;
// … and about this many sources of stored texts.
constexpr size_t kCommitArrivals = 1024;

class IngesterImpl final : public Ingester {
 public:
  IngesterImpl(Memory* memory, model::Transformer* model, IngestOptions options)
      : memory_(memory),
        model_(model),
        device_(options.device != nullptr ? options.device : model->device()),
        options_(std::move(options)) {}

  absl::Status Initialize();
  void StartFiller();
  absl::Status Add(documents::TextDocument& document, const std::string& collection) override;
  absl::Status RemoveSources(absl::FunctionRef<bool(const std::string&)> is_gone) override;
  absl::Status Finish() override;

 private:
  using Arrivals = std::vector<std::shared_ptr<Arrival>>;

  // Windows of documents that the new one may take over: earlier versions, unfinished ones.
  absl::StatusOr<WindowPool> CollectPool(Arrival* arrival);
  absl::Status QueueWindows(documents::TextDocument& document, Arrival* arrival, WindowPool pool,
                            absl::Status* document_error);
  // Takes back what was queued and committed of a document whose reading failed.
  void Drop(const std::shared_ptr<Arrival>& arrival);
  // Makes the sources of `arrivals` refer to their documents; changed records join the commit.
  void PutReferences(const Arrivals& arrivals, Mutation* mutation);
  void PutChanges(Mutation* mutation);
  // What is on its way from the model to the disk.
  struct EncodedBatch {
    WindowBatch batch;
    CommittedWindows committed;  // where filler_ is to have them
  };
  // Begins to commit, behind what is being committed.
  absl::Status StartCommit(EncodedBatch encoded);
  // Of this run's unreferenced documents and of unfinished ones that it has made superfluous.
  absl::Status DeleteLeftovers();
  // Windows attend to the memory so far, so that none of another day can be used again.
  bool IsReference() const { return settings_.encoding == "reference"; }
  // Length of the next window of a stream.
  absl::StatusOr<int64_t> NextWindow(TokenStream* stream) const;
  absl::Status Encode(WindowBatch* batch);
  // Begins to encode what is queued, once what was queued before is encoded and on its way to the
  // disk. Where the host computes itself nothing is gained by encoding beside it: that is complete
  // on return then.
  absl::Status Flush();
  // Waits for what is being encoded and begins to commit it.
  absl::Status FinishEncoding();
  // Waits for all that is under way, takes note of it and reports what it completed. To be called
  // before anything else reads or changes what it may concern.
  absl::Status FinishCommit();
  absl::Status FinishCommitInFlight();
  absl::Status FinishOldestCommit();
  void Fail(const documents::TextDocument& document, const absl::Status& status) {
    Report(FailedDocument(document.title, document.source, status));
  }
  void Report(const IngestedDocument& result) {
    if (options_.on_document) options_.on_document(result);
  }

  Memory* memory_;
  const model::Transformer* model_;
  compute::Device* device_;
  model::Workspace workspace_;
  IngestOptions options_;
  storage::StoreSettings settings_;
  std::unique_ptr<BackgroundSealer> sealer_;
  std::unique_ptr<TextIndexFiller> filler_;  // null: words wait for the end
  storage::Counters counters_;
  SourceTable table_;
  // Stored documents that are not complete: unfinished ones, and complete ones that nothing refers
  // to any more. Their windows serve versions that have the same; they go at the end of a run that
  // saw their text or their source.
  std::vector<DocumentRecord> leftovers_;
  absl::flat_hash_set<DocumentNumber> superfluous_;  // to be deleted whatever this run sees
  absl::flat_hash_set<std::string> seen_ids_;
  absl::flat_hash_set<std::pair<std::string, std::string>> seen_;  // source, collection
  SourceTable::SeenSources seen_source_ids_;
  // Of each stored or queued window the document that it belongs to. A window serves one complete
  // document; those of leftovers are free to be taken.
  absl::flat_hash_map<Slot, DocumentNumber> owners_;
  std::vector<QueuedWindow> queue_;
  int64_t queued_new_tokens_ = 0;  // to be encoded, where there are memory layers
  int64_t queued_tokens_ = 0;
  Arrivals arrivals_;  // that wait for their commit
  int64_t encoded_tokens_ = 0;
  // In this order of batches, the oldest first; destroying one waits.
  std::deque<BackgroundCommit> in_flight_;
  std::future<absl::StatusOr<EncodedBatch>> encoding_;
  // What could not be encoded is in no commit, so that none may follow it.
  absl::Status encode_failure_;
};

absl::Status IngesterImpl::Initialize() {
  ASSIGN_OR_RETURN(settings_, AgreeOnSettings(memory_, *model_, options_));
  if (options_.encode_batch_tokens <= 0) {
    options_.encode_batch_tokens = EncodeBatchTokens(settings_, model_->config(), *device_);
  }
  ASSIGN_OR_RETURN(counters_, memory_->store().ReadCounters());
  RETURN_IF_ERROR(memory_->store().ForEachDocument([this](const DocumentRecord& document) {
    if (document.complete) {
      table_.Load(document);
    } else {
      leftovers_.push_back(document);
    }
    return absl::OkStatus();
  }));
  absl::flat_hash_set<DocumentNumber> unfinished;
  for (const DocumentRecord& leftover : leftovers_) unfinished.insert(leftover.number);
  RETURN_IF_ERROR(memory_->store().ForEachLink([&](const WindowLink& link) {
    if (!unfinished.contains(link.document)) owners_[link.slot_begin] = link.document;
    return absl::OkStatus();
  }));
  if (settings_.n_mem_layers > 0) {
    std::vector<uint64_t> damaged;
    for (const auto& segment : memory_->Current()->segments) {
      if (!segment->damage.empty()) damaged.push_back(segment->record.id);
    }
    SealerOptions sealing;
    if (!device_->is_host_memory()) {
      // The processors are free, the GPU helps, and more is there before a segment is built.
      ASSIGN_OR_RETURN(sealing.device, device_->CreateAnother(NumProcessors()));
      sealing.min_slots = 6 * kSealSlots;
    }
    ASSIGN_OR_RETURN(sealer_, BackgroundSealer::Start(&memory_->store(), memory_->index_folder(),
                                                      std::move(damaged), std::move(sealing)));
  }
  StartFiller();
  return absl::OkStatus();
}

void IngesterImpl::StartFiller() {
  // A host that encodes has no processor to spare.
  index::TextIndex* const text_index = memory_->text_index();
  if (device_->is_host_memory() || text_index == nullptr) return;
  // A damaged one, or one of an earlier version, is made again at the end.
  const absl::StatusOr<uint64_t> next_slot = text_index->NextSlot();
  if (!next_slot.ok() || *next_slot != counters_.next_slot || !text_index->is_newest_version()) {
    return;
  }
  filler_ = std::make_unique<TextIndexFiller>(text_index);
}

absl::StatusOr<WindowPool> IngesterImpl::CollectPool(Arrival* arrival) {
  WindowPool pool;
  if (IsReference()) return pool;
  const storage::SourceReference& reference = arrival->reference;
  std::vector<DocumentNumber> numbers;
  std::optional<DocumentNumber> going;  // when this one comes, as nothing else refers to it
  const auto* holder = table_.Holder(reference.source, reference.collection);
  if (reference.replaceable && holder != nullptr && holder->sources.size() == 1 &&
      std::none_of(arrivals_.begin(), arrivals_.end(),
                   [&](const auto& other) { return other->id == holder->id; })) {
    going = holder->number;
    arrival->robbed_id = holder->id;
    numbers.push_back(holder->number);
  }
  for (const DocumentRecord& leftover : leftovers_) {
    const bool same_source =
        std::any_of(leftover.sources.begin(), leftover.sources.end(), [&](const auto& other) {
          return other.source == reference.source && other.collection == reference.collection;
        });
    if (leftover.id == arrival->id || (same_source && reference.replaceable)) {
      numbers.push_back(leftover.number);
    }
  }
  // What is under way may be what writes the links that are read here.
  if (!numbers.empty()) RETURN_IF_ERROR(FinishCommit());
  absl::flat_hash_set<Slot> known;  // several versions may link the same window
  for (const DocumentNumber number : numbers) {
    ASSIGN_OR_RETURN(const std::vector<WindowLink> links, memory_->store().Links(number));
    for (const WindowLink& link : links) {
      if (!known.insert(link.slot_begin).second) continue;
      const auto owner = owners_.find(link.slot_begin);
      const bool is_free =
          owner == owners_.end() || owner->second == going || superfluous_.contains(owner->second);
      if (!is_free) continue;
      absl::StatusOr<WindowRecord> window = memory_->store().GetWindow(link.slot_begin);
      // A damaged window is simply encoded again.
      if (absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status())) continue;
      RETURN_IF_ERROR(window.status());
      pool[window->content_hash].push_back(
          {link.slot_begin, link.n_tokens,
           owner == owners_.end() ? std::nullopt : std::optional(owner->second)});
    }
  }
  return pool;
}

absl::Status IngesterImpl::Add(documents::TextDocument& document, const std::string& collection) {
  if (!options_.any_collection_name) {
    RETURN_IF_ERROR(documents::CheckCollectionName(
        document.collection.empty() ? collection : document.collection));
  }
  const absl::StatusOr<TextIdentity> hashed = IdentifyText(document, options_.progress);
  if (absl::IsCancelled(hashed.status())) {
    RETURN_IF_ERROR(FinishCommit());
    return hashed.status();
  }
  if (!hashed.ok()) {
    Fail(document, hashed.status());
    return absl::OkStatus();
  }
  const std::string& id = hashed->id;
  const uint64_t size_bytes = hashed->size_bytes;
  if (options_.one_text_per_source) {
    const absl::Status unique = SourceTable::CheckOneText(seen_source_ids_, document.source, id);
    if (!unique.ok()) {
      Fail(document, unique);
      return absl::OkStatus();
    }
  }

  auto arrival = std::make_shared<Arrival>();
  arrival->id = id;
  arrival->reference = {
      .source = document.source,
      .collection = document.collection.empty() ? collection : document.collection,
      .title = document.title,
      .replaceable = document.replaceable};
  arrival->in_no_other_collection = !document.collection.empty();
  const storage::SourceReference& reference = arrival->reference;
  // What the same source held a moment ago comes first.
  const bool source_waits =
      std::any_of(arrivals_.begin(), arrivals_.end(), [&](const auto& waiting) {
        return waiting->reference.source == reference.source && waiting->id != id;
      });
  // … and a stored document whose windows went to a newer version goes before it may come back.
  const bool robbed = std::any_of(arrivals_.begin(), arrivals_.end(),
                                  [&](const auto& other) { return other->robbed_id == id; });
  if (source_waits || robbed) RETURN_IF_ERROR(Flush());

  const auto waiting = std::find_if(arrivals_.begin(), arrivals_.end(), [&](const auto& other) {
    return other->id == id && other->record.has_value();
  });
  const DocumentRecord* holder =
      reference.replaceable ? table_.Holder(reference.source, reference.collection) : nullptr;
  const bool replaces = holder != nullptr && holder->id != id;
  const DocumentRecord* stored =
      waiting != arrivals_.end() ? &*(*waiting)->record : table_.Find(id);
  IngestedDocument& result = arrival->result;
  result.id = id;
  result.title = reference.title;
  result.source = reference.source;
  result.status = replaces            ? IngestStatus::kReplaced
                  : stored != nullptr ? IngestStatus::kUnchanged
                                      : IngestStatus::kAdded;
  result.is_new_source = result.status == IngestStatus::kUnchanged &&
                         !seen_.contains({reference.source, reference.collection}) &&
                         SourceTable::IsNewSource(*stored, reference);
  seen_ids_.insert(id);
  seen_.insert({reference.source, reference.collection});
  seen_source_ids_[reference.source] = id;
  if (stored != nullptr) {
    result.tokens = stored->n_tokens;
    result.windows = stored->n_windows;
    if (waiting == arrivals_.end() && !replaces && !arrival->in_no_other_collection &&
        table_.Refers(id, reference)) {
      // It may be complete in the commit that is under way only.
      RETURN_IF_ERROR(FinishCommit());
      Report(result);
      return absl::OkStatus();
    }
    arrival->all_windows_queued = true;
    arrivals_.push_back(arrival);
    return arrivals_.size() >= kCommitArrivals ? Flush() : absl::OkStatus();
  }

  ASSIGN_OR_RETURN(WindowPool pool, CollectPool(arrival.get()));
  DocumentRecord& record = arrival->record.emplace();
  record.number = counters_.next_document++;
  record.id = id;
  record.size_bytes = size_bytes;
  record.ingested_unix_s = static_cast<int64_t>(std::time(nullptr));
  arrivals_.push_back(arrival);

  absl::Status document_error;
  RETURN_IF_ERROR(QueueWindows(document, arrival.get(), std::move(pool), &document_error));
  if (!document_error.ok()) {
    RETURN_IF_ERROR(FinishCommit());
    Drop(arrival);
    Fail(document, document_error);
    return absl::OkStatus();
  }
  arrival->all_windows_queued = true;
  if (queued_new_tokens_ >= options_.encode_batch_tokens || queued_tokens_ >= kCommitTokens) {
    RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

void IngesterImpl::Drop(const std::shared_ptr<Arrival>& arrival) {
  const DocumentNumber number = arrival->record->number;
  std::erase_if(queue_, [&](const QueuedWindow& queued) { return queued.link.document == number; });
  queued_tokens_ = 0;
  queued_new_tokens_ = 0;
  for (const QueuedWindow& queued : queue_) {
    queued_tokens_ += queued.link.n_tokens;
    if (queued.window) queued_new_tokens_ += queued.link.n_tokens;
  }
  std::erase(arrivals_, arrival);
  superfluous_.insert(number);
  for (const StoredRange& range : arrival->taken) {
    if (range.owner) owners_[range.slot_begin] = *range.owner;
  }
  // What could not be read is not known to have another text now.
  seen_.erase({arrival->reference.source, arrival->reference.collection});
  seen_source_ids_.erase(arrival->reference.source);
}

absl::Status IngesterImpl::RemoveSources(absl::FunctionRef<bool(const std::string&)> is_gone) {
  RETURN_IF_ERROR(Flush());
  const auto gone = table_.RemoveUnseen(seen_source_ids_, is_gone);
  std::vector<IngestedDocument> completed;
  for (const auto& [document, reference] : gone) {
    seen_.insert({reference.source, reference.collection});
    IngestedDocument& result = completed.emplace_back();
    result.id = document.id;
    result.title = reference.title;
    result.source = reference.source;
    result.status = IngestStatus::kRemoved;
  }
  RETURN_IF_ERROR(FinishEncoding());
  WindowBatch batch;
  batch.completed = std::move(completed);
  PutChanges(&batch.mutation);
  RETURN_IF_ERROR(StartCommit({.batch = std::move(batch), .committed = {}}));
  return FinishCommit();
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

absl::Status IngesterImpl::Encode(WindowBatch* batch) {
  const std::vector<model::WindowTokens> windows = batch->TokensToEncode();
  if (windows.empty() || settings_.n_mem_layers == 0) return absl::OkStatus();
  if (!IsReference()) {
    ASSIGN_OR_RETURN(batch->encoded, model_->Encode(*device_, windows, nullptr, &workspace_));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(FinishCommit());  // they attend to what is stored
  IngestView view;
  for (const auto& arrival : arrivals_) {
    if (arrival->record) view.with.push_back(arrival->record->number);
    const auto& reference = arrival->reference;
    const auto* holder = table_.Holder(reference.source, reference.collection);
    if (reference.replaceable && holder != nullptr && holder->id != arrival->id &&
        holder->sources.size() == 1) {
      view.without.push_back(holder->number);
    }
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const Generation> generation, memory_->View(view));
  ASSIGN_OR_RETURN(batch->encoded, EncodeAttending(*model_, device_, std::move(generation), windows,
                                                   &workspace_, options_.progress));
  return absl::OkStatus();
}

absl::Status IngesterImpl::QueueWindows(documents::TextDocument& document, Arrival* arrival,
                                        WindowPool pool, absl::Status* document_error) {
  DocumentRecord& record = *arrival->record;
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
    queued.link.document = record.number;
    queued.link.ordinal = record.n_windows;
    queued.link.n_tokens = static_cast<uint32_t>(n_tokens);
    queued.link.byte_begin = byte_begin;
    queued.link.n_bytes = n_bytes;
    // LongLLaMA's own inference selects among all keys.
    if (!IsReference()) queued.link.repeats = FindRepeats(window.context_ids, window.ids);
    bool is_new = false;
    if (const auto stored = pool.find(window.content_hash);
        stored != pool.end() && !stored->second.empty()) {
      queued.link.slot_begin = stored->second.back().slot_begin;
      arrival->taken.push_back(stored->second.back());
      stored->second.pop_back();
    } else {
      queued.link.slot_begin = counters_.next_slot;
      window.slot_begin = counters_.next_slot;
      counters_.next_slot += static_cast<uint64_t>(n_tokens);
      queued_new_tokens_ += n_tokens;
      if (settings_.n_mem_layers > 0) {  // else its text alone is kept
        arrival->result.encoded_windows += 1;
        arrival->result.encoded_tokens += static_cast<uint64_t>(n_tokens);
      }
      is_new = true;
    }
    owners_[queued.link.slot_begin] = record.number;
    record.n_tokens += static_cast<uint64_t>(n_tokens);
    record.n_windows += 1;
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
  if (byte_begin != record.size_bytes) {
    *document_error = absl::AbortedError(StrCat(document.source, ": changed while it was read (",
                                                record.size_bytes, " bytes of text first, then ",
                                                byte_begin, "); ingest it again"));
  }
  return absl::OkStatus();
}

absl::Status IngesterImpl::Flush() {
  if (queue_.empty() && arrivals_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FinishEncoding());
  WindowBatch batch;
  batch.windows = std::move(queue_);
  batch.n_encoded_tokens = settings_.n_mem_layers > 0 ? queued_new_tokens_ : 0;
  const bool in_background = !IsReference() && !device_->is_host_memory();
  if (!in_background) {
    const absl::Status status = Encode(&batch);
    if (!status.ok()) {  // all is as it was before
      queue_ = std::move(batch.windows);
      return status;
    }
  }
  queue_.clear();
  Arrivals completed;
  Arrivals waiting;
  for (const auto& arrival : arrivals_) {
    if (arrival->all_windows_queued) {
      completed.push_back(arrival);
      continue;
    }
    // Its windows so far, so that an interrupted ingest goes on from there.
    DocumentRecord record = *arrival->record;
    record.sources = {arrival->reference};
    batch.mutation.PutDocument(record);
    waiting.push_back(arrival);
  }
  PutReferences(completed, &batch.mutation);
  batch.mutation.PutNextSlot(counters_.next_slot);
  batch.mutation.PutNextDocumentNumber(counters_.next_document);
  for (const auto& arrival : completed) batch.completed.push_back(std::move(arrival->result));
  arrivals_ = std::move(waiting);
  queued_tokens_ = 0;
  queued_new_tokens_ = 0;
  if (in_background) {
    encoding_ = InBackground([this, next_slot = counters_.next_slot,
                              shared = std::make_shared<WindowBatch>(
                                  std::move(batch))]() -> absl::StatusOr<EncodedBatch> {
      RETURN_IF_ERROR(Encode(shared.get()));
      EncodedBatch encoded;
      if (filler_ != nullptr) encoded.committed = CommittedWindows(*shared, next_slot);
      shared->PutWindows(settings_, &device_->threads());
      encoded.batch = std::move(*shared);
      return encoded;
    });
  } else {
    EncodedBatch encoded;
    if (filler_ != nullptr) encoded.committed = CommittedWindows(batch, counters_.next_slot);
    encoded.batch = std::move(batch);
    RETURN_IF_ERROR(StartCommit(std::move(encoded)));
  }
  const absl::Status cancelled = options_.progress.Report({"encode", encoded_tokens_, 0, "tokens"});
  // What is stored is also reported.
  if (!cancelled.ok()) RETURN_IF_ERROR(FinishCommit());
  return cancelled;
}

void IngesterImpl::PutReferences(const Arrivals& arrivals, Mutation* mutation) {
  for (const auto& arrival : arrivals) {
    if (arrival->record) {
      DocumentRecord record = *arrival->record;
      record.complete = true;
      arrival->result.tokens = record.n_tokens;
      arrival->result.windows = record.n_windows;
      table_.Insert(std::move(record));
    }
    table_.Refer(arrival->id, arrival->reference, arrival->in_no_other_collection);
  }
  PutChanges(mutation);
}

void IngesterImpl::PutChanges(Mutation* mutation) {
  SourceTable::Changes changes = table_.TakeChanges();
  for (const DocumentRecord& record : changes.updated) mutation->PutDocument(record);
  for (DocumentRecord& record : changes.unreferenced) {
    // Not deleted yet: another source may turn out to hold the same text.
    record.complete = false;
    mutation->PutDocument(record);
    superfluous_.insert(record.number);
    leftovers_.push_back(std::move(record));
  }
}

absl::Status IngesterImpl::StartCommit(EncodedBatch encoded) {
  // Large ones: some are put together while others go to the disk.
  const size_t n_at_once = device_->is_host_memory() ? 1 : 4;
  while (in_flight_.size() >= n_at_once) RETURN_IF_ERROR(FinishOldestCommit());
  encoded_tokens_ += encoded.batch.n_encoded_tokens;
  in_flight_.emplace_back(&memory_->store(), settings_, std::move(encoded.batch),
                          std::move(encoded.committed),
                          in_flight_.empty() ? nullptr : &in_flight_.back());
  return absl::OkStatus();
}

absl::Status IngesterImpl::FinishEncoding() {
  RETURN_IF_ERROR(encode_failure_);
  if (!encoding_.valid()) return absl::OkStatus();
  absl::StatusOr<EncodedBatch> encoded = encoding_.get();
  if (!encoded.ok()) {
    encode_failure_ = encoded.status();
    RETURN_IF_ERROR(FinishCommitInFlight());  // what came before is stored: it is also reported
    return encode_failure_;
  }
  return StartCommit(*std::move(encoded));
}

absl::Status IngesterImpl::FinishCommit() {
  RETURN_IF_ERROR(FinishEncoding());
  return FinishCommitInFlight();
}

absl::Status IngesterImpl::FinishCommitInFlight() {
  while (!in_flight_.empty()) RETURN_IF_ERROR(FinishOldestCommit());
  return absl::OkStatus();
}

absl::Status IngesterImpl::FinishOldestCommit() {
  BackgroundCommit commit = std::move(in_flight_.front());
  in_flight_.pop_front();
  RETURN_IF_ERROR(commit.Wait());
  if (sealer_ != nullptr) sealer_->Notify();
  if (filler_ != nullptr) filler_->Add(commit.TakeCommitted());
  for (const IngestedDocument& result : commit.completed()) Report(result);
  return absl::OkStatus();
}

absl::Status IngesterImpl::DeleteLeftovers() {
  std::vector<DocumentNumber> deleted(superfluous_.begin(), superfluous_.end());
  for (const DocumentRecord& leftover : leftovers_) {
    if (superfluous_.contains(leftover.number)) continue;
    const bool source_seen =
        std::any_of(leftover.sources.begin(), leftover.sources.end(), [&](const auto& source) {
          return source.replaceable && seen_.contains({source.source, source.collection});
        });
    if (source_seen || seen_ids_.contains(leftover.id)) deleted.push_back(leftover.number);
  }
  if (deleted.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(memory_->DeleteDocuments(deleted));
  const absl::flat_hash_set<DocumentNumber> gone(deleted.begin(), deleted.end());
  std::erase_if(leftovers_, [&](const auto& leftover) { return gone.contains(leftover.number); });
  superfluous_.clear();
  return absl::OkStatus();
}

absl::Status IngesterImpl::Finish() {
  RETURN_IF_ERROR(Flush());
  RETURN_IF_ERROR(FinishCommit());
  RETURN_IF_ERROR(DeleteLeftovers());
  if (filler_ != nullptr) {
    filler_->Finish();
    filler_.reset();
  }
  RETURN_IF_ERROR(memory_->UpdateTextIndex(options_.progress));
  if (sealer_ != nullptr) RETURN_IF_ERROR(sealer_->WaitUntilIdle(options_.progress));
  RETURN_IF_ERROR(memory_->Publish());
  return memory_->CompactIfWorthwhile();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ingester>> Ingester::Create(Memory* memory,
                                                           model::Transformer* model,
                                                           const IngestOptions& options) {
  auto ingester = std::make_unique<IngesterImpl>(memory, model, options);
  RETURN_IF_ERROR(ingester->Initialize());
  return ingester;
}

}  // namespace fovea::memory
