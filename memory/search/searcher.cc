#include "memory/search/searcher.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "compute/attention.h"
#include "compute/key_scan.h"
#include "compute/rescore.h"
#include "compute/top_k_attention.h"
#include "memory/block_layout.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using compute::ConstView;
using compute::EntryPlace;
using compute::KeyRun;
using compute::LogSumExp;
using compute::ScoredId;
using compute::TopK;
using compute::View;

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// Slots of a conversation's own windows, far above any stored one.
constexpr int64_t kSessionSlots = int64_t{1} << 62;

// Positions of a call whose queries an audit compares with dense attention: its cost is a dense
// pass for each.
constexpr int64_t kAuditedPositions = 4;

// Exact best keys that decide whether a query is confident (index/calibration.h).
constexpr int kNeedleTop = 16;

// Slots for which one look into a table replaces a binary search over the windows.
constexpr uint64_t kBucketSlots = 256;
constexpr float kNeedleShare = 0.5f;

// Candidates, of as many segments as that takes, whose windows are loaded and scored together: many
// enough to keep all threads busy, few enough (16 bytes each) for long prompts.
constexpr size_t kRescoredAtOnce = size_t{1} << 20;

uint64_t SelectableTokens(const LiveWindow& window) {
  uint64_t n = window.n_tokens;
  for (const storage::TokenRange& range : window.sinks) n -= range.n_tokens;
  return n;
}

// A run of windows that is searched in one way.
struct SearchedSegment {
  std::shared_ptr<const Segment> segment;  // with indexes
  std::vector<uint64_t> allowed_bits;      // by slot − slot_begin; empty: everything is allowed
};

class MemorySearcherImpl final : public MemorySearcher {
 public:
  MemorySearcherImpl(compute::Device* device, std::shared_ptr<const Generation> generation,
                     SearchOptions options)
      : device_(device), generation_(std::move(generation)), options_(std::move(options)) {}

  absl::Status Initialize();
  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override;
  absl::StatusOr<model::MemoryHits> FindTop(const model::MemoryQuery& query, int top_k) override;
  absl::Status AttendTo(const model::MemoryQuery& query, model::MemoryHits* hits, float* output,
                        float* lse) override;
  absl::Status AddMass(const model::MemoryQuery& query, model::MemoryHits* hits,
                       const float* lse) override;
  void AddSessionWindow(model::EncodedWindow window) override;
  size_t n_session_windows() const override { return session_.size(); }
  void TruncateSessionWindows(size_t n) override {
    if (n < session_.size()) session_.resize(n);
  }
  std::vector<SlotMass> Mass() const override;
  int64_t n_rows() const override { return n_rows_; }
  void ResetMass() override;
  AuditResult Audit() const override;
  const Generation& generation() const override { return *generation_; }
  const QueryScope& scope() const override { return options_.scope; }
  bool Allows(Slot slot) const override;
  uint64_t n_tokens() const override { return n_tokens_; }

 private:
  BlockCache& cache() const { return generation_->source->cache(); }
  // The parts of one call, in one place.
  struct Call {
    const model::MemoryQuery& query;
    int64_t group;   // query heads that share a KV head
    int64_t n_rows;  // n_queries · group: rows of a KV head's scan
    explicit Call(const model::MemoryQuery& q)
        : query(q), group(q.n_heads / q.n_kv_heads), n_rows(q.n_queries * group) {}
  };
  // Nothing is stored and nothing was added: neutral, whatever the model's shapes.
  bool is_empty() const { return windows_.empty() && session_.empty(); }
  absl::Status CheckQuery(const model::MemoryQuery& query) const;
  // Keys of some windows, one list of runs per KV head, with what keeps them alive.
  struct LoadedRuns {
    std::vector<HalfBlock> blocks;
    std::vector<std::vector<KeyRun>> runs;  // [n_kv_heads]
  };

  // Loads the halves of `windows` in parallel.
  absl::StatusOr<std::vector<HalfBlock>> LoadBlocks(std::span<const uint32_t> windows,
                                                    int memory_layer, bool keys);
  absl::StatusOr<LoadedRuns> LoadRuns(std::span<const uint32_t> windows, int memory_layer);
  void AddSessionRuns(int memory_layer, LoadedRuns* runs) const;
  // Calls visit(runs) for the session's windows and the scanned ones (or all allowed ones), in
  // portions that the cache holds.
  absl::Status ForEachRuns(int memory_layer, bool all_windows,
                           absl::FunctionRef<absl::Status(const LoadedRuns&)> visit);
  absl::StatusOr<std::vector<TopK>> FindTop(const Call& call, int top_k, bool exact_only);
  // Candidates of all segments, scored again with the stored keys.
  absl::Status SearchIndexes(const Call& call, std::vector<TopK>* best);
  absl::Status AttendToTop(const Call& call, std::vector<TopK>* best, float* output, float* lse);
  absl::Status AttendDensely(const Call& call, float* output, float* lse);
  // Adds the mass of the kept keys, given the log-sum-exp of all memory keys seen.
  absl::Status CollectMass(const Call& call, std::vector<TopK>* best, const float* memory_lse);
  // What query head i of [n_queries, n_heads] kept, best first.
  static std::span<const ScoredId> Kept(const Call& call, std::vector<TopK>* best, int64_t i) {
    const int64_t head = i % call.query.n_heads;
    return (*best)[static_cast<size_t>(head / call.group)].Sorted(
        i / call.query.n_heads * call.group + head % call.group);
  }
  absl::Status AuditCall(const Call& call, std::vector<TopK>* kept);
  // Where an allowed stored slot lies: the number of its window in windows_, and its token there.
  EntryPlace PlaceOf(int64_t slot) const;
  // The same for a slot of the session, whose windows follow those of windows_.
  EntryPlace SessionPlaceOf(int64_t slot) const;
  // What a segment's index found: [n_queries, n_heads, n_per_row].
  struct Found {
    Found(int64_t slot, int64_t n) : first_slot(slot), n_per_row(n) {}
    int64_t first_slot;
    int64_t n_per_row;
    std::vector<int64_t> ids;  // slots, less first_slot; −1: none
    std::vector<EntryPlace> places;
  };
  absl::Status Rescore(const Call& call, std::vector<Found>* found, std::vector<TopK>* best);
  // Halves of blocks that calls use, by number in windows_; empty: not loaded.
  struct BlockTable {
    std::vector<HalfBlock> blocks;
    std::vector<compute::EntryBlock> entries;  // what the blocks hold, then the session's
    std::vector<uint32_t> wanted;              // what is used now, each once
    std::vector<bool> is_wanted;
  };
  void Want(uint32_t window, BlockTable* table) const;
  // Loads what is wanted and not there, in parallel.
  absl::Status LoadWanted(int memory_layer, bool keys, BlockTable* table);
  // Ends the use: blocks stay where there is room for all, and are left to the cache where not.
  void EndUse(BlockTable* table) const;

  compute::Device* device_;
  std::shared_ptr<const Generation> generation_;
  SearchOptions options_;
  int64_t n_kv_heads_ = 0;
  int64_t head_dim_ = 0;
  int n_mem_layers_ = 0;
  EntryType entry_type_ = EntryType::kBFloat16;  // of stored entries, and of the session's
  std::vector<uint32_t> windows_;  // allowed ones: indexes into generation_->windows, by slot
  std::vector<uint32_t> scanned_;  // of those, the ones searched exactly
  std::vector<SearchedSegment> indexed_;
  uint64_t n_tokens_ = 0;
  // By (slot − slot of the first window) / kBucketSlots: the window of windows_ to look from.
  std::vector<uint32_t> bucket_windows_;
  bool keep_blocks_ = false;           // keys and values of all windows fit the cache
  std::vector<BlockTable> keys_;       // [n_mem_layers]
  std::vector<BlockTable> values_;     // [n_mem_layers]
  bool keep_runs_ = false;             // all scanned keys fit the cache
  std::vector<LoadedRuns> kept_runs_;  // [n_mem_layers], filled on first use
  std::vector<bool> runs_loaded_;
  // Session windows: [n_kv_heads, n_tokens, head_dim] per memory layer.
  struct SessionWindow {
    int64_t first_slot;
    int64_t n_tokens;
    std::vector<storage::Block> blocks;  // [n_mem_layers]
  };
  std::vector<SessionWindow> session_;
  int64_t next_session_slot_ = kSessionSlots;

  std::vector<absl::flat_hash_map<int64_t, float>> mass_;  // [n_mem_layers] slot → mass
  int64_t n_rows_ = 0;
  std::vector<double> audit_captured_;
  std::vector<int64_t> audit_rows_;
  std::vector<int64_t> audit_hits_;
  std::vector<int64_t> audit_confident_;
};

absl::Status MemorySearcherImpl::Initialize() {
  const auto& settings = generation_->settings;
  if (settings) {
    n_kv_heads_ = settings->n_kv_heads;
    head_dim_ = settings->head_dim;
    n_mem_layers_ = settings->n_mem_layers;
    entry_type_ = settings->entry_type;
  }
  ASSIGN_OR_RETURN(windows_, SelectWindows(*generation_, options_.scope));
  const bool uses_indexes = options_.mode == SearchMode::kApproximate;
  auto next = windows_.begin();
  for (const auto& segment : generation_->segments) {
    const storage::SegmentRecord& record = segment->record;
    const auto window_at = [this](uint32_t w) -> const LiveWindow& {
      return generation_->windows[w];
    };
    const auto first = next;
    while (next != windows_.end() && window_at(*next).slot_begin < record.slot_end) ++next;
    if (!uses_indexes || segment->layers.empty()) {
      scanned_.insert(scanned_.end(), first, next);
      continue;
    }
    uint64_t allowed_tokens = 0;
    for (auto w = first; w != next; ++w) allowed_tokens += SelectableTokens(window_at(*w));
    if (allowed_tokens == 0) continue;
    SearchedSegment searched{segment, {}};
    // Fewer tokens may be selected than the index holds: the rest must not come back.
    if (allowed_tokens != record.n_tokens) {
      searched.allowed_bits.resize((record.slot_end - record.slot_begin + 63) / 64);
      for (auto w = first; w != next; ++w) {
        const uint64_t begin = window_at(*w).slot_begin - record.slot_begin;
        const LiveWindow& window = window_at(*w);
        ForEachOther(window.sinks, window.n_tokens, [&](uint32_t from, uint32_t to) {
          for (uint64_t id = begin + from; id < begin + to; ++id) {
            searched.allowed_bits[id >> 6] |= uint64_t{1} << (id & 63);
          }
        });
      }
    }
    indexed_.push_back(std::move(searched));
  }
  scanned_.insert(scanned_.end(), next, windows_.end());
  for (uint32_t w : windows_) n_tokens_ += generation_->windows[w].n_tokens;

  uint64_t scanned_tokens = 0;
  for (uint32_t w : scanned_) scanned_tokens += generation_->windows[w].n_tokens;
  const uint64_t key_bytes =
      scanned_tokens * EntryBytes(entry_type_) * n_mem_layers_ * n_kv_heads_ * head_dim_;
  keep_runs_ = key_bytes <= cache().capacity_bytes();
  const uint64_t all_bytes =
      2 * n_tokens_ * EntryBytes(entry_type_) * n_mem_layers_ * n_kv_heads_ * head_dim_;
  keep_blocks_ = all_bytes <= cache().capacity_bytes();
  const auto n_layers = static_cast<size_t>(n_mem_layers_);
  keys_.resize(n_layers);
  values_.resize(n_layers);
  if (!windows_.empty()) {
    const auto begin_of = [this](uint32_t i) {
      return generation_->windows[windows_[i]].slot_begin;
    };
    const Slot first = begin_of(0);
    const LiveWindow& last = generation_->windows[windows_.back()];
    uint32_t i = 0;
    for (Slot slot = first; slot < last.slot_begin + last.n_tokens; slot += kBucketSlots) {
      while (i + 1 < windows_.size() && begin_of(i + 1) <= slot) ++i;
      bucket_windows_.push_back(i);
    }
  }
  kept_runs_.resize(n_layers);
  runs_loaded_.assign(n_layers, false);
  mass_.resize(n_layers);
  audit_captured_.assign(n_layers, 0.0);
  audit_rows_.assign(n_layers, 0);
  audit_hits_.assign(n_layers, 0);
  audit_confident_.assign(n_layers, 0);
  return absl::OkStatus();
}

EntryPlace MemorySearcherImpl::PlaceOf(int64_t slot) const {
  const auto at = static_cast<Slot>(slot);
  const Slot first = generation_->windows[windows_.front()].slot_begin;
  FOVEA_CHECK(at >= first);
  const size_t bucket = (at - first) / kBucketSlots;
  FOVEA_CHECK(bucket < bucket_windows_.size());
  uint32_t i = bucket_windows_[bucket];
  while (i + 1 < windows_.size() && generation_->windows[windows_[i + 1]].slot_begin <= at) ++i;
  return {i, static_cast<uint32_t>(at - generation_->windows[windows_[i]].slot_begin)};
}

void MemorySearcherImpl::Want(uint32_t window, BlockTable* table) const {
  if (table->is_wanted.empty()) {
    table->is_wanted.resize(windows_.size());
    table->blocks.resize(windows_.size());
    table->entries.resize(windows_.size());
  }
  if (table->is_wanted[window]) return;
  table->is_wanted[window] = true;
  table->wanted.push_back(window);
}

absl::Status MemorySearcherImpl::LoadWanted(int memory_layer, bool keys, BlockTable* table) {
  std::vector<uint32_t> missing;  // numbers in windows_
  for (const uint32_t window : table->wanted) {
    if (table->blocks[window].empty()) missing.push_back(window);
  }
  if (missing.empty()) return absl::OkStatus();
  std::sort(missing.begin(), missing.end());  // the order in which they lie in the store
  std::vector<uint32_t> indexes;
  indexes.reserve(missing.size());
  for (const uint32_t window : missing) indexes.push_back(windows_[window]);
  absl::StatusOr<std::vector<HalfBlock>> loaded = LoadBlocks(indexes, memory_layer, keys);
  if (!loaded.ok()) {
    EndUse(table);
    return loaded.status();
  }
  for (size_t i = 0; i < missing.size(); ++i) {
    HalfBlock& block = table->blocks[missing[i]] = std::move((*loaded)[i]);
    table->entries[missing[i]] = {block.data(), generation_->windows[indexes[i]].n_tokens};
  }
  return absl::OkStatus();
}

void MemorySearcherImpl::EndUse(BlockTable* table) const {
  for (const uint32_t window : table->wanted) {
    table->is_wanted[window] = false;
    if (keep_blocks_) continue;
    table->blocks[window] = {};
    table->entries[window] = {};
  }
  table->wanted.clear();
}

bool MemorySearcherImpl::Allows(Slot slot) const {
  auto it = std::upper_bound(windows_.begin(), windows_.end(), slot, [this](Slot s, uint32_t w) {
    return s < generation_->windows[w].slot_begin;
  });
  if (it == windows_.begin()) return false;
  const LiveWindow& window = generation_->windows[*--it];
  return slot < window.slot_begin + window.n_tokens;
}

absl::StatusOr<std::vector<HalfBlock>> MemorySearcherImpl::LoadBlocks(
    std::span<const uint32_t> windows, int memory_layer, bool keys) {
  std::vector<HalfBlock> blocks(windows.size());
  std::vector<absl::Status> errors(static_cast<size_t>(device_->threads().n_threads()));
  device_->threads().ParallelFor(
      static_cast<int64_t>(windows.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const LiveWindow& window = generation_->windows[windows[i]];
          const storage::WindowHold* hold = generation_->hold.get();
          auto block = keys ? cache().Keys(window.slot_begin, memory_layer, hold)
                            : cache().Values(window.slot_begin, memory_layer, hold);
          if (!block.ok()) {
            // A window that can be searched has its blocks.
            const absl::Status status =
                absl::IsNotFound(block.status())
                    ? absl::DataLossError(StrCat("missing: ", block.status().message()))
                    : block.status();
            errors[thread] = Annotate(
                status, StrCat("document ", generation_->documents[window.document].id, " (",
                               generation_->documents[window.document].source(), ")"));
            return;
          }
          blocks[i] = *std::move(block);
        }
      });
  for (const absl::Status& error : errors) RETURN_IF_ERROR(error);
  return blocks;
}

absl::StatusOr<MemorySearcherImpl::LoadedRuns> MemorySearcherImpl::LoadRuns(
    std::span<const uint32_t> windows, int memory_layer) {
  LoadedRuns loaded;
  ASSIGN_OR_RETURN(loaded.blocks, LoadBlocks(windows, memory_layer, true));
  loaded.runs.resize(static_cast<size_t>(n_kv_heads_));
  for (size_t i = 0; i < windows.size(); ++i) {
    const LiveWindow& window = generation_->windows[windows[i]];
    for (int64_t head = 0; head < n_kv_heads_; ++head) {
      ForEachOther(window.sinks, window.n_tokens, [&](uint32_t begin, uint32_t end) {
        loaded.runs[head].push_back(
            {loaded.blocks[i].data() + (head * window.n_tokens + begin) * head_dim_, end - begin,
             static_cast<int64_t>(window.slot_begin + begin)});
      });
    }
  }
  return loaded;
}

void MemorySearcherImpl::AddSessionRuns(int memory_layer, LoadedRuns* runs) const {
  runs->runs.resize(static_cast<size_t>(n_kv_heads_));
  for (const SessionWindow& window : session_) {
    for (int64_t head = 0; head < n_kv_heads_; ++head) {
      runs->runs[head].push_back(
          {window.blocks[memory_layer].keys.data() + head * window.n_tokens * head_dim_,
           window.n_tokens, window.first_slot});
    }
  }
}

absl::Status MemorySearcherImpl::ForEachRuns(
    int memory_layer, bool all_windows, absl::FunctionRef<absl::Status(const LoadedRuns&)> visit) {
  if (!session_.empty()) {
    LoadedRuns session;
    AddSessionRuns(memory_layer, &session);
    RETURN_IF_ERROR(visit(session));
  }
  const std::vector<uint32_t>& windows = all_windows ? windows_ : scanned_;
  if (keep_runs_ && windows.size() == scanned_.size()) {
    if (!runs_loaded_[memory_layer]) {
      ASSIGN_OR_RETURN(kept_runs_[memory_layer], LoadRuns(scanned_, memory_layer));
      runs_loaded_[memory_layer] = true;
    }
    return visit(kept_runs_[memory_layer]);
  }
  // Too much to hold: portions of a quarter of the cache, read again for each call.
  const uint64_t portion_bytes = cache().capacity_bytes() / 4;
  for (size_t begin = 0; begin < windows.size();) {
    RETURN_IF_ERROR(options_.progress.CheckCancelled());
    size_t end = begin;
    uint64_t bytes = 0;
    while (end < windows.size() && (end == begin || bytes < portion_bytes)) {
      bytes += generation_->windows[windows[end++]].n_tokens * EntryBytes(entry_type_) *
               n_kv_heads_ * head_dim_;
    }
    ASSIGN_OR_RETURN(const LoadedRuns loaded,
                     LoadRuns(std::span(windows).subspan(begin, end - begin), memory_layer));
    RETURN_IF_ERROR(visit(loaded));
    begin = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TopK>> MemorySearcherImpl::FindTop(const Call& call, int top_k,
                                                              bool exact_only) {
  const model::MemoryQuery& query = call.query;
  std::vector<TopK> best;
  for (int64_t head = 0; head < query.n_kv_heads; ++head) best.emplace_back(call.n_rows, top_k);
  RETURN_IF_ERROR(ForEachRuns(query.memory_layer, exact_only, [&](const LoadedRuns& loaded) {
    for (int64_t head = 0; head < query.n_kv_heads; ++head) {
      // The heads of a group lie side by side, those of the next position a row further.
      const ConstView rows(query.queries + head * call.group * query.head_dim,
                           {query.n_queries, call.group, query.head_dim});
      RETURN_IF_ERROR(compute::KeyScan(
          *device_,
          {.queries = rows.WithStrides({query.n_heads * query.head_dim, query.head_dim, 1}),
           .runs = loaded.runs[head]},
          &best[head]));
    }
    return absl::OkStatus();
  }));
  if (!exact_only) RETURN_IF_ERROR(SearchIndexes(call, &best));
  return best;
}

absl::Status MemorySearcherImpl::SearchIndexes(const Call& call, std::vector<TopK>* best) {
  const model::MemoryQuery& query = call.query;
  std::vector<Found> found;
  size_t n_found = 0;
  for (const SearchedSegment& searched : indexed_) {
    RETURN_IF_ERROR(options_.progress.CheckCancelled());
    const storage::SegmentRecord& record = searched.segment->record;
    index::LayerSearchArgs args;
    args.queries = query.queries;
    args.n_queries = query.n_queries;
    args.n_heads = query.n_heads;
    const index::LayerIndex& layer = *searched.segment->layers[query.memory_layer];
    const bool is_judged = layer.effort().n_candidates > 0;
    const index::Effort effort =
        is_judged ? layer.effort() : index::Effort{record.n_probe, record.n_candidates};
    args.n_candidates = std::max(effort.n_candidates, (*best)[0].top_k());
    args.n_probe = effort.n_probe;
    if (!searched.allowed_bits.empty()) args.filter.bits = &searched.allowed_bits;
    Found& candidates =
        found.emplace_back(static_cast<int64_t>(record.slot_begin), args.n_candidates);
    RETURN_IF_ERROR(layer.Search(*device_, args, &candidates.ids));
    n_found += candidates.ids.size();
    if (n_found < kRescoredAtOnce) continue;
    RETURN_IF_ERROR(Rescore(call, &found, best));
    found.clear();
    n_found = 0;
  }
  return Rescore(call, &found, best);
}

absl::Status MemorySearcherImpl::Rescore(const Call& call, std::vector<Found>* found,
                                         std::vector<TopK>* best) {
  const model::MemoryQuery& query = call.query;
  // Which windows are needed, those in parallel, then the rows.
  BlockTable& table = keys_[static_cast<size_t>(query.memory_layer)];
  std::vector<compute::Candidates> candidates;
  for (Found& segment : *found) {
    segment.places.resize(segment.ids.size());
    for (size_t i = 0; i < segment.ids.size(); ++i) {
      if (segment.ids[i] < 0) continue;
      segment.places[i] = PlaceOf(segment.first_slot + segment.ids[i]);
      Want(segment.places[i].block, &table);
    }
    candidates.push_back({.first_id = segment.first_slot,
                          .n_per_row = segment.n_per_row,
                          .ids = segment.ids,
                          .places = segment.places});
  }
  RETURN_IF_ERROR(LoadWanted(query.memory_layer, true, &table));
  const absl::Status status = compute::Rescore(
      *device_,
      {.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
       .candidates = candidates,
       .keys = {table.entries}},
      *best);
  EndUse(&table);
  return status;
}

absl::Status MemorySearcherImpl::AttendToTop(const Call& call, std::vector<TopK>* best,
                                             float* output, float* lse) {
  const model::MemoryQuery& query = call.query;
  BlockTable& table = values_[static_cast<size_t>(query.memory_layer)];
  const auto top_k = static_cast<size_t>((*best)[0].top_k());
  const auto n_all = static_cast<size_t>(query.n_queries * query.n_heads);
  std::vector<EntryPlace> places(n_all * top_k);
  for (size_t i = 0; i < n_all; ++i) {
    size_t j = i * top_k;
    for (const ScoredId& hit : Kept(call, best, static_cast<int64_t>(i))) {
      if (hit.id >= kSessionSlots) {
        places[j++] = SessionPlaceOf(hit.id);
        continue;
      }
      places[j] = PlaceOf(hit.id);
      Want(places[j++].block, &table);
    }
  }
  RETURN_IF_ERROR(LoadWanted(query.memory_layer, false, &table));
  table.entries.resize(windows_.size());
  for (const SessionWindow& window : session_) {
    table.entries.push_back({window.blocks[query.memory_layer].values.data(), window.n_tokens});
  }
  const absl::Status status = compute::TopKAttention(
      *device_, {.kept = *best,
                 .values = {table.entries},
                 .places = places,
                 .scale = query.scale,
                 .output = {output, {query.n_queries, query.n_heads, query.head_dim}},
                 .lse = {lse, {query.n_queries, query.n_heads}}});
  EndUse(&table);
  return status;
}

EntryPlace MemorySearcherImpl::SessionPlaceOf(int64_t slot) const {
  for (size_t i = 0; i < session_.size(); ++i) {
    const int64_t offset = slot - session_[i].first_slot;
    if (offset < 0 || offset >= session_[i].n_tokens) continue;
    return {static_cast<uint32_t>(windows_.size() + i), static_cast<uint32_t>(offset)};
  }
  FOVEA_CHECK(false);
  return {};
}

absl::Status MemorySearcherImpl::AttendDensely(const Call& call, float* output, float* lse) {
  const model::MemoryQuery& query = call.query;
  const int64_t n_all = query.n_queries * query.n_heads;
  const int64_t d = query.head_dim;
  std::fill_n(output, n_all * d, 0.0f);
  std::fill_n(lse, n_all, kNegativeInfinity);
  std::vector<float> part_output(static_cast<size_t>(n_all * d));
  std::vector<float> part_lse(static_cast<size_t>(n_all));
  // To the tokens [first, end) of a block of n_tokens.
  const auto attend = [&](EntryPointer block_keys, EntryPointer block_values, int64_t n_tokens,
                          int64_t first, int64_t end) -> absl::Status {
    const auto view = [&](EntryPointer entries) {  // stored with heads outermost
      return ConstView(entries + first * d, {end - first, n_kv_heads_, d})
          .WithStrides({d, n_tokens * d, 1});
    };
    const View part(part_output.data(), {query.n_queries, query.n_heads, d});
    const View part_sums(part_lse.data(), {query.n_queries, query.n_heads});
    RETURN_IF_ERROR(compute::Attention(
        *device_, {.queries = {query.queries, {query.n_queries, query.n_heads, d}},
                   .keys = view(block_keys),
                   .values = view(block_values),
                   .scale = query.scale,
                   .causal = false,
                   .output = part,
                   .lse = part_sums}));
    return compute::MergePartials(*device_,
                                  {.output = {output, {query.n_queries, query.n_heads, d}},
                                   .lse = {lse, {query.n_queries, query.n_heads}},
                                   .other_output = part,
                                   .other_lse = part_sums});
  };
  for (const SessionWindow& window : session_) {
    const storage::Block& block = window.blocks[query.memory_layer];
    RETURN_IF_ERROR(
        attend(block.keys.data(), block.values.data(), window.n_tokens, 0, window.n_tokens));
  }
  constexpr size_t kWindowsAtOnce = 16;
  for (size_t begin = 0; begin < windows_.size(); begin += kWindowsAtOnce) {
    RETURN_IF_ERROR(options_.progress.CheckCancelled());
    const size_t n = std::min(kWindowsAtOnce, windows_.size() - begin);
    const std::span<const uint32_t> portion(windows_.data() + begin, n);
    ASSIGN_OR_RETURN(const auto key_blocks, LoadBlocks(portion, query.memory_layer, true));
    ASSIGN_OR_RETURN(const auto value_blocks, LoadBlocks(portion, query.memory_layer, false));
    for (size_t i = 0; i < n; ++i) {
      const LiveWindow& window = generation_->windows[portion[i]];
      absl::Status status;
      ForEachOther(window.sinks, window.n_tokens, [&](uint32_t first, uint32_t end) {
        if (!status.ok()) return;
        status = attend(key_blocks[i].data(), value_blocks[i].data(), window.n_tokens, first, end);
      });
      RETURN_IF_ERROR(status);
    }
  }
  return absl::OkStatus();
}

absl::Status MemorySearcherImpl::CollectMass(const Call& call, std::vector<TopK>* best,
                                             const float* memory_lse) {
  const model::MemoryQuery& query = call.query;
  const int64_t n_all = query.n_queries * query.n_heads;
  const int64_t top_k = (*best)[0].top_k();
  std::vector<float> weights(static_cast<size_t>(n_all * top_k));
  const auto sums = [&](const float* lse) {
    return lse == nullptr ? ConstView() : ConstView(lse, {query.n_queries, query.n_heads});
  };
  RETURN_IF_ERROR(compute::TopKWeights(
      *device_, {.kept = *best,
                 .scale = query.scale,
                 .lse = sums(memory_lse),
                 .other_lse = sums(query.local_lse),
                 .weights = {weights.data(), {query.n_queries, query.n_heads, top_k}}}));
  auto& mass = mass_[query.memory_layer];
  for (int64_t i = 0; i < n_all; ++i) {
    const float* weight = weights.data() + i * top_k;
    for (const ScoredId& hit : Kept(call, best, i)) {
      if (hit.id < kSessionSlots) mass[hit.id] += *weight;
      ++weight;
    }
  }
  if (query.memory_layer == 0) n_rows_ += n_all;
  return absl::OkStatus();
}

absl::Status MemorySearcherImpl::CheckQuery(const model::MemoryQuery& query) const {
  if (query.n_kv_heads != n_kv_heads_ || query.head_dim != head_dim_ ||
      query.memory_layer >= n_mem_layers_) {
    return absl::FailedPreconditionError(
        StrCat("memory has ", n_mem_layers_, " layers of ", n_kv_heads_, " heads of ", head_dim_,
               ", the model asks layer ", query.memory_layer, " with ", query.n_kv_heads,
               " heads of ", query.head_dim, ": use the model that made the memory"));
  }
  return options_.progress.CheckCancelled();
}

absl::StatusOr<model::MemoryHits> MemorySearcherImpl::FindTop(const model::MemoryQuery& query,
                                                              int top_k) {
  const Call call(query);
  if (is_empty()) {
    return model::MemoryHits(static_cast<size_t>(query.n_kv_heads), TopK(call.n_rows, top_k));
  }
  RETURN_IF_ERROR(CheckQuery(query));
  return FindTop(call, top_k, false);
}

absl::Status MemorySearcherImpl::AttendTo(const model::MemoryQuery& query, model::MemoryHits* hits,
                                          float* output, float* lse) {
  if (is_empty()) {
    std::fill_n(output, query.n_queries * query.n_heads * query.head_dim, 0.0f);
    std::fill_n(lse, query.n_queries * query.n_heads, kNegativeInfinity);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckQuery(query));
  const Call call(query);
  return options_.mode == SearchMode::kDense ? AttendDensely(call, output, lse)
                                             : AttendToTop(call, hits, output, lse);
}

absl::Status MemorySearcherImpl::AddMass(const model::MemoryQuery& query, model::MemoryHits* hits,
                                         const float* lse) {
  if (is_empty()) {
    if (query.memory_layer == 0) n_rows_ += query.n_queries * query.n_heads;
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckQuery(query));
  return CollectMass(Call(query), hits, lse);
}

absl::Status MemorySearcherImpl::Attend(const model::MemoryQuery& query, float* output,
                                        float* lse) {
  RETURN_IF_ERROR(CheckQuery(query));
  // No more than there are: room is taken for so many.
  uint64_t n_keys = n_tokens_;
  for (const SessionWindow& window : session_) n_keys += static_cast<uint64_t>(window.n_tokens);
  const int top_k = static_cast<int>(std::clamp<uint64_t>(n_keys, 1, options_.top_k));
  ASSIGN_OR_RETURN(model::MemoryHits hits, FindTop(query, top_k));
  RETURN_IF_ERROR(AttendTo(query, &hits, output, lse));
  RETURN_IF_ERROR(AddMass(query, &hits, lse));
  if (options_.audit) RETURN_IF_ERROR(AuditCall(Call(query), &hits));
  return absl::OkStatus();
}

absl::Status MemorySearcherImpl::AuditCall(const Call& call, std::vector<TopK>* kept) {
  const model::MemoryQuery& query = call.query;
  const int64_t n = std::min(query.n_queries, kAuditedPositions);
  const int64_t first = query.n_queries - n;  // the last positions: where the answer begins
  model::MemoryQuery sample = query;
  sample.queries = query.queries + first * query.n_heads * query.head_dim;
  sample.local_lse = nullptr;
  sample.n_queries = n;
  const Call sampled(sample);
  std::vector<float> output(static_cast<size_t>(n * query.n_heads * query.head_dim));
  std::vector<float> dense_lse(static_cast<size_t>(n * query.n_heads));
  RETURN_IF_ERROR(AttendDensely(sampled, output.data(), dense_lse.data()));
  ASSIGN_OR_RETURN(std::vector<TopK> exact, FindTop(sampled, kNeedleTop, true));
  const int layer = query.memory_layer;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t h = 0; h < query.n_heads; ++h) {
      const auto hits = (*kept)[h / call.group].Sorted((first + t) * call.group + h % call.group);
      const auto best = exact[h / call.group].Sorted(t * call.group + h % call.group);
      if (best.empty()) continue;
      const float dense = dense_lse[t * query.n_heads + h];
      audit_captured_[layer] +=
          options_.mode == SearchMode::kDense
              ? 1.0
              : std::min(1.0f, std::exp(LogSumExp(hits, query.scale) - dense));
      ++audit_rows_[layer];
      const float share = std::exp(best.front().score * query.scale - LogSumExp(best, query.scale));
      if (share < kNeedleShare) continue;
      ++audit_confident_[layer];
      for (const ScoredId& hit : hits) {
        if (hit.id == best.front().id) {
          ++audit_hits_[layer];
          break;
        }
      }
    }
  }
  return absl::OkStatus();
}

void MemorySearcherImpl::AddSessionWindow(model::EncodedWindow window) {
  SessionWindow added{next_session_slot_, window.n_tokens, {}};
  next_session_slot_ += window.n_tokens;
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    added.blocks.push_back(ToBlock(window, layer, n_kv_heads_, head_dim_, entry_type_));
  }
  session_.push_back(std::move(added));
}

std::vector<SlotMass> MemorySearcherImpl::Mass() const {
  absl::flat_hash_map<int64_t, SlotMass> all;
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    for (const auto& [slot, mass] : mass_[layer]) {
      SlotMass& entry = all[slot];
      entry.slot = static_cast<Slot>(slot);
      entry.mass.resize(static_cast<size_t>(n_mem_layers_));
      entry.mass[layer] = mass;
    }
  }
  std::vector<SlotMass> result;
  result.reserve(all.size());
  for (auto& [slot, entry] : all) result.push_back(std::move(entry));
  // A map's order differs from process to process, and with it the last digits of sums.
  std::sort(result.begin(), result.end(),
            [](const SlotMass& a, const SlotMass& b) { return a.slot < b.slot; });
  return result;
}

void MemorySearcherImpl::ResetMass() {
  for (auto& layer : mass_) layer.clear();
  n_rows_ = 0;
}

AuditResult MemorySearcherImpl::Audit() const {
  AuditResult result;
  for (int layer = 0; layer < n_mem_layers_; ++layer) {
    const int64_t rows = audit_rows_[layer];
    const int64_t confident = audit_confident_[layer];
    result.captured_mass.push_back(rows == 0 ? 1.0 : audit_captured_[layer] / rows);
    result.needle_recall.push_back(
        confident == 0 ? 1.0 : static_cast<double>(audit_hits_[layer]) / confident);
    result.n_confident.push_back(confident);
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemorySearcher>> MemorySearcher::Create(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options) {
  auto searcher = std::make_unique<MemorySearcherImpl>(device, std::move(generation), options);
  RETURN_IF_ERROR(searcher->Initialize());
  return searcher;
}

}  // namespace fovea::memory
