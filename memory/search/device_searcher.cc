#include "memory/search/device_searcher.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "compute/coded_memory_attention.h"
#include "compute/kept_attention.h"
#include "compute/memory_attention.h"
#include "memory/block_layout.h"
#include "memory/resident_entries.h"
#include "memory/search/audit.h"
#include "memory/search/device_dense_attention.h"
#include "memory/search/device_mass_log.h"
#include "memory/search/stored_values.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using compute::Buffer;
using compute::ConstView;

// Values from the store that are put where the device reads them at a time, unless a query wants
// more.
constexpr size_t kGatheredBytes = size_t{16} << 20;

class DeviceSearcher final : public MemorySearcher {
 public:
  DeviceSearcher(compute::Device* device, std::shared_ptr<const Generation> generation,
                 SearchOptions options)
      : device_(device),
        generation_(std::move(generation)),
        options_(std::move(options)),
        dense_(device) {}

  absl::Status Initialize();

  model::MemoryPlace place() const override { return model::MemoryPlace::kDevice; }
  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override;
  // Neighbours whose filters are the same share a read of the keys or codes; a conversation with
  // windows of its own is asked alone.
  void AttendTogether(std::span<model::MemoryRequest> requests) override;
  absl::Status BeginStep(uint64_t* recording_id) override;
  // Shards on a device answer in one phase; an audit is of that search, and each shard's.
  absl::Status AttendAsOne(std::span<model::ShardSource* const> shards,
                           const model::MemoryQuery& query, int top_k, float* output,
                           float* lse) override;
  absl::StatusOr<model::MemoryHits> FindTop(const model::MemoryQuery&, int) override {
    return NoShards();
  }
  absl::Status AttendTo(const model::MemoryQuery&, model::MemoryHits*, float*, float*) override {
    return NoShards();
  }
  absl::Status AddMass(const model::MemoryQuery&, model::MemoryHits*, const float*) override {
    return NoShards();
  }

  void AddSessionWindow(model::EncodedWindow window) override;
  size_t n_session_windows() const override { return session_.size(); }
  void TruncateSessionWindows(size_t n) override {
    if (n >= session_.size()) return;
    session_.resize(n);
    session_is_uploaded_ = false;
  }
  std::vector<SlotMass> Mass() const override;
  int64_t n_rows() const override { return n_rows_ + log_.n_step_rows(); }
  void ResetMass() override {
    log_status_ = log_.Reset();
    n_rows_ = 0;
  }
  AuditResult Audit() const override { return audit_->Result(); }
  const Generation& generation() const override { return *generation_; }
  const QueryScope& scope() const override { return options_.scope; }
  bool Allows(Slot slot) const override;
  uint64_t n_tokens() const override { return n_tokens_; }

 private:
  static absl::Status NoShards() {
    return absl::UnimplementedError(
        "shards of a memory on a GPU are searched as one (AttendAsOne)");
  }
  absl::Status CheckQuery(const model::MemoryQuery& query) const;
  // Whether the request after `before`, both of searchers like this one, can join it in one search.
  bool CanJoin(const model::MemoryRequest& before, const model::MemoryRequest& next) const;
  // One search for requests each of which can join the one before it; a status for all.
  absl::Status AttendAtOnce(std::span<model::MemoryRequest> requests);
  int64_t n_keys() const {
    return n_session_tokens_ + (entries_ != nullptr ? entries_->n_positions() : 0);
  }
  int TopK() const {
    return static_cast<int>(
        std::clamp<int64_t>(n_keys(), 1, std::min(options_.top_k, compute::kMaxMemoryTopK)));
  }
  bool UsesCodes() const { return entries_ != nullptr && entries_->uses_codes(); }
  absl::Status UploadSession();
  // The keys that a query is asked of: what is stored, then the conversation's own.
  std::vector<compute::CodedMemoryPart> PartsOf(int memory_layer) const;
  int NumCandidates(int memory_layer, int top_k) const {
    const int wanted = entries_ != nullptr ? entries_->n_candidates(memory_layer) : 0;
    return std::clamp(wanted, top_k, compute::kMaxCandidates);
  }
  // Searches the indexes of slabs that have them, and tells their parts what was found.
  absl::Status SearchIndexes(const model::MemoryQuery& query, int top_k,
                             std::vector<compute::CodedMemoryPart>* parts);
  // How parts are searched: by codes and indexes, where entries were loaded for that, or by keys.
  struct Effort {
    int top_k = 1;
    bool by_codes = false;
    int n_candidates = 1;  // by codes
  };
  Effort EffortOf(int memory_layer) const {
    const int top_k = TopK();
    return {.top_k = top_k,
            .by_codes = UsesCodes(),
            .n_candidates = NumCandidates(memory_layer, top_k)};
  }
  // Of several searchers that are asked at once: where its keys begin among those of all.
  struct Shard {
    DeviceSearcher* searcher;
    int64_t first_position;
  };
  // Asks `query` of all parts at once, which are those of `shards`, or of a searcher like this one;
  // the kept keys go to `room`.
  absl::Status Search(const model::MemoryQuery& query,
                      std::span<const compute::CodedMemoryPart> parts,
                      std::span<const Shard> shards, const Effort& effort,
                      const DeviceMassLog::Room& room, float* output, float* lse);
  // What a search leaves to do where parts have no values: those of the keys in `room` are read,
  // and attended to.
  absl::Status AttendToStored(const model::MemoryQuery& query,
                              std::span<const compute::MemoryPart> parts,
                              std::span<const Shard> shards, int top_k,
                              const DeviceMassLog::Room& room, float* output);
  bool IsDense() const { return options_.mode == SearchMode::kDense; }
  // Of dense attention to what `parts` has.
  std::vector<PartRun> DenseRuns(std::span<const compute::CodedMemoryPart> parts) const;
  // Compares what was kept for the last positions with what is there, for the audit of each shard.
  absl::Status AuditCall(const model::MemoryQuery& query,
                         std::span<const compute::CodedMemoryPart> parts,
                         std::span<const PartRun> runs, std::span<const Shard> shards,
                         const DeviceMassLog::Room& kept, int top_k);

  compute::Device* device_;
  std::shared_ptr<const Generation> generation_;
  SearchOptions options_;
  int n_mem_layers_ = 0;
  std::shared_ptr<const ResidentEntries> entries_;  // null: nothing is stored
  std::vector<uint32_t> windows_;                   // allowed ones
  uint64_t n_tokens_ = 0;
  std::shared_ptr<const Buffer> allowed_;  // bits of positions; null: all
  std::vector<int64_t> n_allowed_;         // of each slab
  Buffer found_;                           // by indexes
  std::vector<PartRun> dense_runs_;        // of slabs, for dense attention and audits
  DeviceDenseAttention dense_;
  std::optional<SearchAudit> audit_;
  std::optional<StoredValues> stored_values_;  // where the entries have none
  Buffer pinned_values_, gathered_values_;     // of kept keys, on their way to the device
  // A conversation's own windows: host blocks per memory layer, and all of them on the device.
  std::vector<std::vector<storage::Block>> session_;
  bool session_is_uploaded_ = true;
  int64_t n_session_tokens_ = 0;                       // on the device
  std::vector<Buffer> session_keys_, session_values_;  // [n_mem_layers]

  int64_t n_rows_ = 0;                        // but for those of steps
  uint64_t recording_id_ = NewRecordingId();  // of what Attend does for a step
  static uint64_t NewRecordingId() {
    static std::atomic<uint64_t> n_ids = 0;
    return ++n_ids;
  }
  mutable DeviceMassLog log_;
  mutable absl::Status log_status_;
};

absl::Status DeviceSearcher::Initialize() {
  ASSIGN_OR_RETURN(windows_, SelectWindows(*generation_, options_.scope));
  for (const uint32_t w : windows_) n_tokens_ += generation_->windows[w].n_tokens;
  if (generation_->settings.has_value()) n_mem_layers_ = generation_->settings->n_mem_layers;
  audit_.emplace(n_mem_layers_);
  if (!generation_->settings.has_value()) return absl::OkStatus();
  log_ = DeviceMassLog(device_, n_mem_layers_, 0);
  if (generation_->windows.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(entries_, generation_->source->resident().Get(
                                 *device_, *generation_, options_.mode == SearchMode::kApproximate,
                                 options_.progress));
  log_ = DeviceMassLog(device_, n_mem_layers_, entries_->n_positions());
  if (!entries_->has_values()) {
    stored_values_.emplace(device_, generation_, windows_, options_.progress);
  }
  const bool reads_all = IsDense() || options_.audit;
  if (reads_all && !entries_->is_all_on_device()) {
    return absl::ResourceExhaustedError(StrCat(
        IsDense() ? "dense attention" : "an audit", " reads all keys and values of the ", n_tokens_,
        " tokens, and not all of them fit the GPU: give it more memory, or use "
        "--device cpu"));
  }
  std::vector<uint64_t> bits(static_cast<size_t>(entries_->n_allowed_words()));
  size_t n_allowed = 0;
  for (const uint32_t w : windows_) {
    const LiveWindow& window = generation_->windows[w];
    const auto begin = static_cast<size_t>(entries_->AllowedBitOf(w));
    ForEachOther(window.sinks, window.n_tokens, [&](uint32_t from, uint32_t to) {
      n_allowed += to - from;
      for (size_t p = begin + from; p < begin + to; ++p) bits[p / 64] |= uint64_t{1} << (p % 64);
      if (!reads_all) return;
      const auto [slab, token] = entries_->PlaceOfBit(static_cast<int64_t>(begin + from));
      if (dense_runs_.empty() || dense_runs_.back().part != slab ||
          dense_runs_.back().end != token) {
        dense_runs_.push_back({.part = slab, .begin = token, .end = token});
      }
      dense_runs_.back().end += to - from;
    });
  }
  if (dense_runs_.size() > kMaxDenseRuns) {
    return absl::UnimplementedError(StrCat("what may be read of it lies in ", dense_runs_.size(),
                                           " pieces, dense attention on a GPU reads at most ",
                                           kMaxDenseRuns));
  }
  n_allowed_ = entries_->CountAllowed(bits);
  if (n_allowed == static_cast<size_t>(entries_->n_positions())) return absl::OkStatus();
  ASSIGN_OR_RETURN(allowed_, entries_->AllowedOnDevice(*device_, std::move(bits)));
  return absl::OkStatus();
}

bool DeviceSearcher::Allows(Slot slot) const {
  const auto after = std::upper_bound(
      windows_.begin(), windows_.end(), slot,
      [this](Slot s, uint32_t w) { return s < generation_->windows[w].slot_begin; });
  if (after == windows_.begin()) return false;
  const LiveWindow& window = generation_->windows[*(after - 1)];
  return slot < window.slot_begin + window.n_tokens;
}

void DeviceSearcher::AddSessionWindow(model::EncodedWindow window) {
  const storage::StoreSettings& settings = *generation_->settings;
  std::vector<storage::Block>& blocks = session_.emplace_back();
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    blocks.push_back(
        ToBlock(window, layer, settings.n_kv_heads, settings.head_dim, settings.entry_type));
  }
  session_is_uploaded_ = false;
}

absl::Status DeviceSearcher::UploadSession() {
  if (session_is_uploaded_) return absl::OkStatus();
  const storage::StoreSettings& settings = *generation_->settings;
  n_session_tokens_ = 0;
  for (const auto& blocks : session_) n_session_tokens_ += blocks[0].n_tokens;
  session_keys_.clear();
  session_values_.clear();
  const size_t token_bytes =
      static_cast<size_t>(settings.head_dim) * EntryBytes(settings.entry_type);
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    for (const bool keys : {true, false}) {
      std::vector<std::byte> all(static_cast<size_t>(settings.n_kv_heads * n_session_tokens_) *
                                 token_bytes);
      int64_t begin = 0;
      for (const auto& blocks : session_) {
        const storage::Block& block = blocks[static_cast<size_t>(layer)];
        const auto* const from =
            static_cast<const std::byte*>((keys ? block.keys : block.values).data().address());
        const size_t n = static_cast<size_t>(block.n_tokens) * token_bytes;
        for (int64_t head = 0; head < settings.n_kv_heads; ++head) {
          std::copy_n(
              from + static_cast<size_t>(head) * n, n,
              all.data() + static_cast<size_t>(head * n_session_tokens_ + begin) * token_bytes);
        }
        begin += block.n_tokens;
      }
      ASSIGN_OR_RETURN(Buffer buffer, device_->Allocate(all.size()));
      RETURN_IF_ERROR(device_->CopyFromHost(all.data(), all.size(), buffer.data<void>()));
      (keys ? session_keys_ : session_values_).push_back(std::move(buffer));
    }
  }
  session_is_uploaded_ = true;
  recording_id_ = NewRecordingId();
  return absl::OkStatus();
}

std::vector<compute::CodedMemoryPart> DeviceSearcher::PartsOf(int memory_layer) const {
  std::vector<compute::CodedMemoryPart> parts;
  if (entries_ != nullptr) {
    parts =
        entries_->Parts(memory_layer, allowed_ != nullptr ? allowed_->data<uint64_t>() : nullptr);
  }
  if (n_session_tokens_ > 0) {
    const storage::StoreSettings& settings = *generation_->settings;
    const auto layer = static_cast<size_t>(memory_layer);
    const auto view = [&](const Buffer& buffer) {
      return ConstView(compute::DTypeOf(settings.entry_type), buffer.data<void>(),
                       {settings.n_kv_heads, n_session_tokens_, settings.head_dim});
    };
    parts.push_back(
        {.entries = {.keys = view(session_keys_[layer]), .values = view(session_values_[layer])},
         .codes = {}});
  }
  return parts;
}

absl::Status DeviceSearcher::CheckQuery(const model::MemoryQuery& query) const {
  const storage::StoreSettings& settings = *generation_->settings;
  if (query.n_kv_heads == settings.n_kv_heads && query.head_dim == settings.head_dim &&
      query.memory_layer < n_mem_layers_) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(StrCat(
      "memory has ", n_mem_layers_, " layers of ", settings.n_kv_heads, " heads of ",
      settings.head_dim, ", the model asks layer ", query.memory_layer, " with ", query.n_kv_heads,
      " heads of ", query.head_dim, ": use the model that made the memory"));
}

void DeviceSearcher::AttendTogether(std::span<model::MemoryRequest> requests) {
  model::AttendInRuns(
      requests,
      [](const model::MemoryRequest& before, const model::MemoryRequest& next) {
        const auto* const own = dynamic_cast<const DeviceSearcher*>(before.memory);
        return own != nullptr && own->CanJoin(before, next);
      },
      [](std::span<model::MemoryRequest> joined) {
        auto& first = static_cast<DeviceSearcher&>(*joined[0].memory);
        const absl::Status status = first.AttendAtOnce(joined);
        for (model::MemoryRequest& request : joined) request.status = status;
      });
}

bool DeviceSearcher::CanJoin(const model::MemoryRequest& before,
                             const model::MemoryRequest& next) const {
  const auto* const other = dynamic_cast<const DeviceSearcher*>(next.memory);
  if (other == nullptr || next.memory == before.memory) return false;
  const auto is_plain = [](const DeviceSearcher& searcher) {
    return searcher.entries_ != nullptr && searcher.session_.empty() &&
           searcher.n_session_tokens_ == 0 && !searcher.IsDense() && !searcher.options_.audit &&
           !searcher.entries_->has_indexes() && searcher.options_.progress.CheckCancelled().ok();
  };
  if (!is_plain(*this) || !is_plain(*other) || other->device_ != device_ ||
      other->entries_ != entries_ || other->allowed_ != allowed_ || other->TopK() != TopK()) {
    return false;
  }
  return CheckQuery(before.query).ok() && model::FollowsInMemory(before, next);
}

absl::Status DeviceSearcher::AttendAtOnce(std::span<model::MemoryRequest> requests) {
  std::vector<DeviceMassLog::Call> calls;
  int64_t n_queries = 0;
  const model::MemoryQuery& first = requests[0].query;
  for (const model::MemoryRequest& request : requests) {
    auto& searcher = static_cast<DeviceSearcher&>(*request.memory);
    calls.push_back(
        {.log = &searcher.log_, .query = &request.query, .first_row = n_queries * first.n_heads});
    n_queries += request.query.n_queries;
    if (first.memory_layer == 0) {
      searcher.n_rows_ += request.query.n_queries * request.query.n_heads;
    }
  }
  const Effort effort = EffortOf(first.memory_layer);
  ASSIGN_OR_RETURN(const DeviceMassLog::Room room,
                   DeviceMassLog::ReserveTogether(calls, effort.top_k));
  model::MemoryQuery all = first;
  all.n_queries = n_queries;
  const Shard shard{this, 0};
  RETURN_IF_ERROR(Search(all, PartsOf(first.memory_layer), {&shard, 1}, effort, room,
                         requests[0].output, requests[0].lse));
  return DeviceMassLog::AddTogether(calls, requests[0].lse);
}

absl::Status DeviceSearcher::Attend(const model::MemoryQuery& query, float* output, float* lse) {
  RETURN_IF_ERROR(options_.progress.CheckCancelled());
  const int64_t n_all = query.n_queries * query.n_heads;
  if (query.memory_layer == 0 && !query.is_step) n_rows_ += n_all;
  if (entries_ == nullptr && session_.empty()) {
    RETURN_IF_ERROR(device_->Fill(0.0f, n_all * query.head_dim, output));
    return device_->Fill(-std::numeric_limits<float>::infinity(), n_all, lse);
  }
  RETURN_IF_ERROR(CheckQuery(query));
  RETURN_IF_ERROR(UploadSession());
  const Effort effort = EffortOf(query.memory_layer);
  ASSIGN_OR_RETURN(const DeviceMassLog::Room room, log_.Reserve(query, effort.top_k));
  std::vector<compute::CodedMemoryPart> parts = PartsOf(query.memory_layer);
  RETURN_IF_ERROR(SearchIndexes(query, effort.top_k, &parts));
  const Shard shard{this, 0};
  RETURN_IF_ERROR(Search(query, parts, {&shard, 1}, effort, room, output, lse));
  if (options_.audit) {
    RETURN_IF_ERROR(AuditCall(query, parts, DenseRuns(parts), {&shard, 1}, room, effort.top_k));
  }
  // The best keys are what names sources.
  if (IsDense()) RETURN_IF_ERROR(dense_.Attend(parts, DenseRuns(parts), query, output, lse));
  return log_.Add(query, lse);
}

absl::Status DeviceSearcher::AttendAsOne(std::span<model::ShardSource* const> shards,
                                         const model::MemoryQuery& query, int top_k, float* output,
                                         float* lse) {
  if (top_k > compute::kMaxMemoryTopK) {
    return absl::InvalidArgumentError(
        StrCat("shards on a GPU: top_k ", top_k, ", want at most ", compute::kMaxMemoryTopK));
  }
  std::vector<DeviceSearcher*> searchers;
  int64_t n_keys = 0;
  const int64_t n_rows = query.n_queries * query.n_heads;
  for (model::ShardSource* const shard : shards) {
    auto* const searcher = dynamic_cast<DeviceSearcher*>(shard);
    if (searcher == nullptr || searcher->device_ != device_ || searcher->IsDense() != IsDense() ||
        searcher->options_.audit != options_.audit) {
      return absl::InvalidArgumentError(
          "shards on a GPU: want searchers on one device, all of them dense or none, all of them "
          "audited or none");
    }
    RETURN_IF_ERROR(searcher->options_.progress.CheckCancelled());
    if (query.memory_layer == 0) searcher->n_rows_ += n_rows;
    if (searcher->entries_ == nullptr && searcher->session_.empty()) continue;
    RETURN_IF_ERROR(searcher->CheckQuery(query));
    RETURN_IF_ERROR(searcher->UploadSession());
    n_keys += searcher->n_keys();
    searchers.push_back(searcher);
  }
  top_k = static_cast<int>(std::clamp<int64_t>(n_keys, 1, top_k));
  Effort effort{.top_k = top_k, .n_candidates = top_k};
  std::vector<compute::CodedMemoryPart> parts;
  std::vector<PartRun> runs;
  std::vector<DeviceMassLog::Call> calls;
  std::vector<Shard> of_all;
  int64_t first_position = 0;
  for (DeviceSearcher* const searcher : searchers) {
    std::vector<compute::CodedMemoryPart> own = searcher->PartsOf(query.memory_layer);
    RETURN_IF_ERROR(searcher->SearchIndexes(query, top_k, &own));
    if (IsDense() || options_.audit) {
      for (PartRun run : searcher->DenseRuns(own)) {
        run.part += parts.size();
        runs.push_back(run);
      }
    }
    parts.insert(parts.end(), own.begin(), own.end());
    calls.push_back({.log = &searcher->log_, .query = &query, .first_position = first_position});
    of_all.push_back({searcher, first_position});
    first_position += searcher->n_keys();
    effort.by_codes |= searcher->UsesCodes();
    effort.n_candidates =
        std::max(effort.n_candidates, searcher->NumCandidates(query.memory_layer, top_k));
  }
  if (searchers.empty()) {
    RETURN_IF_ERROR(device_->Fill(0.0f, n_rows * query.head_dim, output));
    return device_->Fill(-std::numeric_limits<float>::infinity(), n_rows, lse);
  }
  ASSIGN_OR_RETURN(const DeviceMassLog::Room room, DeviceMassLog::ReserveTogether(calls, top_k));
  RETURN_IF_ERROR(Search(query, parts, of_all, effort, room, output, lse));
  if (options_.audit) RETURN_IF_ERROR(AuditCall(query, parts, runs, of_all, room, top_k));
  if (IsDense()) RETURN_IF_ERROR(dense_.Attend(parts, runs, query, output, lse));
  return DeviceMassLog::AddTogether(calls, lse);
}

std::vector<PartRun> DeviceSearcher::DenseRuns(
    std::span<const compute::CodedMemoryPart> parts) const {
  std::vector<PartRun> runs = dense_runs_;
  if (n_session_tokens_ > 0) {
    runs.push_back({.part = parts.size() - 1, .begin = 0, .end = n_session_tokens_});
  }
  return runs;
}

absl::Status DeviceSearcher::AuditCall(const model::MemoryQuery& query,
                                       std::span<const compute::CodedMemoryPart> parts,
                                       std::span<const PartRun> runs, std::span<const Shard> shards,
                                       const DeviceMassLog::Room& kept, int top_k) {
  const int64_t n = std::min(query.n_queries, SearchAudit::kPositions);
  const int64_t first_row = (query.n_queries - n) * query.n_heads;
  const auto n_rows = static_cast<size_t>(n * query.n_heads);
  model::MemoryQuery sample = query;
  sample.queries = query.queries + first_row * query.head_dim;
  sample.n_queries = n;
  ASSIGN_OR_RETURN(const Buffer output,
                   device_->Allocate(n_rows * static_cast<size_t>(query.head_dim) * sizeof(float)));
  ASSIGN_OR_RETURN(const Buffer lse, device_->Allocate(n_rows * sizeof(float)));
  const compute::View outputs(output.data<float>(), {n, query.n_heads, query.head_dim});
  const compute::View sums(lse.data<float>(), {n, query.n_heads});
  // Positions and scores of a row → its hits.
  struct Hits {
    std::vector<int64_t> positions;
    std::vector<float> scores;
    std::vector<compute::ScoredId> Of(size_t row, int n_per_row) const {
      std::vector<compute::ScoredId> hits;
      const size_t begin = row * static_cast<size_t>(n_per_row);
      for (size_t i = begin; i < begin + static_cast<size_t>(n_per_row); ++i) {
        if (positions[i] >= 0) hits.push_back({scores[i], positions[i]});
      }
      return hits;
    }
  };
  const auto to_host = [&](const int64_t* positions, const float* scores, int n_per_row,
                           Hits* hits) {
    const size_t n_hits = n_rows * static_cast<size_t>(n_per_row);
    hits->positions.resize(n_hits);
    hits->scores.resize(n_hits);
    RETURN_IF_ERROR(
        device_->CopyToHost(positions, n_hits * sizeof(int64_t), hits->positions.data()));
    return device_->CopyToHost(scores, n_hits * sizeof(float), hits->scores.data());
  };
  Hits of_search, best;
  RETURN_IF_ERROR(to_host(kept.positions + first_row * top_k, kept.scores + first_row * top_k,
                          top_k, &of_search));
  constexpr int kBest = SearchAudit::kBestKeys;
  ASSIGN_OR_RETURN(const Buffer positions, device_->Allocate(n_rows * kBest * sizeof(int64_t)));
  ASSIGN_OR_RETURN(const Buffer scores, device_->Allocate(n_rows * kBest * sizeof(float)));
  std::vector<compute::MemoryPart> entries;
  for (const compute::CodedMemoryPart& part : parts) entries.push_back(part.entries);
  RETURN_IF_ERROR(compute::MemoryAttention(
      *device_, {.queries = {sample.queries, {n, query.n_heads, query.head_dim}},
                 .parts = entries,
                 .top_k = kBest,
                 .scale = query.scale,
                 .output = outputs,
                 .lse = sums,
                 .positions = positions.data<int64_t>(),
                 .scores = scores.data<float>()}));
  RETURN_IF_ERROR(to_host(positions.data<int64_t>(), scores.data<float>(), kBest, &best));
  RETURN_IF_ERROR(dense_.Attend(parts, runs, sample, output.data<float>(), lse.data<float>()));
  std::vector<float> dense_lse(n_rows);
  RETURN_IF_ERROR(device_->CopyToHost(lse.data<void>(), n_rows * sizeof(float), dense_lse.data()));
  for (size_t row = 0; row < n_rows; ++row) {
    const std::vector<compute::ScoredId> best_hits = best.Of(row, kBest);
    if (best_hits.empty()) continue;
    for (const Shard& shard : shards) {
      shard.searcher->audit_->Add(query.memory_layer, {.kept = of_search.Of(row, top_k),
                                                       .best = best_hits,
                                                       .scale = query.scale,
                                                       .dense_lse = dense_lse[row],
                                                       .keeps_all = IsDense()});
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceSearcher::BeginStep(uint64_t* recording_id) {
  *recording_id = 0;
  if (entries_ == nullptr && session_.empty()) return absl::OkStatus();
  if (entries_ != nullptr && !entries_->is_recordable()) return absl::OkStatus();
  if (options_.audit) return absl::OkStatus();  // which waits for the device
  RETURN_IF_ERROR(options_.progress.CheckCancelled());
  RETURN_IF_ERROR(UploadSession());
  RETURN_IF_ERROR(log_.BeginStep());
  *recording_id = recording_id_;
  return absl::OkStatus();
}

absl::Status DeviceSearcher::SearchIndexes(const model::MemoryQuery& query, int top_k,
                                           std::vector<compute::CodedMemoryPart>* parts) {
  if (entries_ == nullptr || !entries_->has_indexes()) return absl::OkStatus();
  const int64_t n_rows = query.n_queries * query.n_heads;
  std::vector<ResidentSlab::Index> indexes;
  int64_t n_all = 0;
  for (size_t slab = 0; slab < n_allowed_.size(); ++slab) {
    ResidentSlab::Index index = entries_->IndexOf(slab, query.memory_layer);
    if (index.index != nullptr && n_allowed_[slab] == 0) {
      index.n_candidates = 1;  // which is none that may be
    } else if (index.index != nullptr) {
      // An index knows no filter: where few of its keys may be selected, more are fetched; where
      // very few may, all keys are scored instead.
      const int64_t n_keys = index.index->ids().size();
      const int64_t wanted = std::max(index.n_candidates, top_k);
      const int64_t n = (wanted * n_keys + n_allowed_[slab] - 1) / n_allowed_[slab];
      index.n_candidates = static_cast<int>(std::min<int64_t>(n, index::kMaxDeviceCandidates));
      if (n > index::kMaxDeviceCandidates) index = {};
    }
    n_all += index.n_candidates;
    indexes.push_back(index);
  }
  RETURN_IF_ERROR(device_->Reserve(static_cast<size_t>(n_rows * n_all) * sizeof(int64_t), &found_));
  auto* keys = found_.data<int64_t>();
  for (size_t slab = 0; slab < indexes.size(); ++slab) {
    const ResidentSlab::Index& index = indexes[slab];
    if (index.index == nullptr) continue;
    RETURN_IF_ERROR(index.index->Search(*device_, {.queries = query.queries,
                                                   .n_queries = query.n_queries,
                                                   .n_heads = query.n_heads,
                                                   .n_candidates = index.n_candidates,
                                                   .n_probe = index.n_probe,
                                                   .keys = keys}));
    (*parts)[slab].found = {.keys = keys, .n_found = index.n_candidates, .tokens = index.tokens};
    keys += n_rows * index.n_candidates;
  }
  return absl::OkStatus();
}

absl::Status DeviceSearcher::Search(const model::MemoryQuery& query,
                                    std::span<const compute::CodedMemoryPart> parts,
                                    std::span<const Shard> shards, const Effort& effort,
                                    const DeviceMassLog::Room& room, float* output, float* lse) {
  const bool reads_store = std::any_of(shards.begin(), shards.end(), [](const Shard& shard) {
    return shard.searcher->stored_values_.has_value();
  });
  const compute::View outputs(output, {query.n_queries, query.n_heads, query.head_dim});
  const compute::CodedMemoryAttentionArgs args{
      .queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
      .parts = parts,
      .n_candidates = effort.n_candidates,
      .top_k = effort.top_k,
      .scale = query.scale,
      .output = reads_store ? compute::View() : outputs,
      .lse = {lse, {query.n_queries, query.n_heads}},
      .positions = room.positions,
      .scores = room.scores};
  std::vector<compute::MemoryPart> entries;
  for (const compute::CodedMemoryPart& part : parts) entries.push_back(part.entries);
  RETURN_IF_ERROR(effort.by_codes ? compute::CodedMemoryAttention(*device_, args)
                                  : compute::MemoryAttention(*device_, {.queries = args.queries,
                                                                        .parts = entries,
                                                                        .top_k = args.top_k,
                                                                        .scale = args.scale,
                                                                        .output = args.output,
                                                                        .lse = args.lse,
                                                                        .positions = args.positions,
                                                                        .scores = args.scores}));
  if (!reads_store || query.n_queries == 0) return absl::OkStatus();
  return AttendToStored(query, entries, shards, effort.top_k, room, output);
}

absl::Status DeviceSearcher::AttendToStored(const model::MemoryQuery& query,
                                            std::span<const compute::MemoryPart> parts,
                                            std::span<const Shard> shards, int top_k,
                                            const DeviceMassLog::Room& room, float* output) {
  const int64_t query_rows = query.n_heads * top_k;
  std::vector<int64_t> positions(static_cast<size_t>(query.n_queries * query_rows));
  RETURN_IF_ERROR(
      device_->CopyToHost(room.positions, positions.size() * sizeof(int64_t), positions.data()));
  const compute::DType dtype = parts[0].keys.dtype();
  const size_t query_bytes =
      static_cast<size_t>(query_rows * query.head_dim * compute::Traits(dtype).block_bytes);
  const auto at_once =
      std::clamp<int64_t>(static_cast<int64_t>(kGatheredBytes / query_bytes), 1, query.n_queries);
  const size_t room_bytes = static_cast<size_t>(at_once) * query_bytes;
  if (pinned_values_.size_bytes() < room_bytes) {
    ASSIGN_OR_RETURN(pinned_values_, device_->AllocatePinned(room_bytes));
  }
  RETURN_IF_ERROR(device_->Reserve(room_bytes, &gathered_values_));
  for (int64_t begin = 0; begin < query.n_queries; begin += at_once) {
    model::MemoryQuery some = query;
    some.n_queries = std::min(at_once, query.n_queries - begin);
    const int64_t first = begin * query_rows;
    // The copy of those before has been made: here, or when the positions were there.
    if (begin > 0) RETURN_IF_ERROR(device_->Synchronize());
    for (const auto& [searcher, first_position] : shards) {
      if (!searcher->stored_values_.has_value()) continue;
      RETURN_IF_ERROR(searcher->stored_values_->Gather(
          some,
          std::span(positions).subspan(static_cast<size_t>(first),
                                       static_cast<size_t>(some.n_queries * query_rows)),
          *searcher->entries_, first_position, pinned_values_.data<std::byte>()));
    }
    RETURN_IF_ERROR(device_->CopyFromPinned(pinned_values_.data<void>(),
                                            static_cast<size_t>(some.n_queries) * query_bytes,
                                            gathered_values_.data<void>()));
    RETURN_IF_ERROR(compute::KeptAttention(
        *device_, {.parts = parts,
                   .positions = room.positions + first,
                   .scores = room.scores + first,
                   .top_k = top_k,
                   .scale = query.scale,
                   .gathered = {dtype,
                                gathered_values_.data<void>(),
                                {some.n_queries * query.n_heads, top_k, query.head_dim}},
                   .output = {output + begin * query.n_heads * query.head_dim,
                              {some.n_queries, query.n_heads, query.head_dim}}}));
  }
  return absl::OkStatus();
}

std::vector<SlotMass> DeviceSearcher::Mass() const {
  absl::flat_hash_map<int64_t, SlotMass> all;
  if (log_status_.ok()) {
    const auto mass = log_.AddUp();
    // An error of the device comes up with the next op, too.
    log_status_ = mass.status();
    for (size_t layer = 0; mass.ok() && layer < (*mass)->size(); ++layer) {
      for (const auto& [position, share] : (**mass)[layer]) {
        SlotMass& entry = all[position];
        entry.mass.resize(static_cast<size_t>(n_mem_layers_));
        entry.mass[layer] = share;
      }
    }
  }
  std::vector<SlotMass> result;
  result.reserve(all.size());
  for (auto& [position, entry] : all) {
    entry.slot = entries_->SlotAt(position);
    result.push_back(std::move(entry));
  }
  // A map's order differs from process to process, and with it the last digits of sums.
  std::sort(result.begin(), result.end(),
            [](const SlotMass& a, const SlotMass& b) { return a.slot < b.slot; });
  return result;
}

}  // namespace

bool CanSearchOnDevice(const compute::Device& device, const SearchOptions& options) {
  return !device.is_host_memory() && options.top_k <= compute::kMaxMemoryTopK;
}

absl::StatusOr<std::unique_ptr<MemorySearcher>> CreateDeviceSearcher(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options) {
  auto searcher = std::make_unique<DeviceSearcher>(device, std::move(generation), options);
  RETURN_IF_ERROR(searcher->Initialize());
  return searcher;
}

}  // namespace fovea::memory
