#include "memory/search/searcher.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "compute/attention.h"
#include "compute/key_scan.h"
#include "memory/block_layout.h"
#include "memory/sinks.h"

namespace fovea::memory {
namespace {

using compute::KeyRun;
using compute::ScoredId;
using compute::TopK;

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
// enough to keep all threads busy, few enough (24 bytes each) for long prompts.
constexpr size_t kRescoredAtOnce = size_t{1} << 20;

float LogAddExp(float a, float b) {
  if (a == kNegativeInfinity) return b;
  if (b == kNegativeInfinity) return a;
  const float high = std::max(a, b);
  return high + std::log1p(std::exp(std::min(a, b) - high));
}

// Log-sum-exp of scaled scores, best first.
float LogSumExp(std::span<const ScoredId> sorted, float scale) {
  if (sorted.empty()) return kNegativeInfinity;
  const float high = sorted.front().score * scale;
  float sum = 0.0f;
  for (const ScoredId& hit : sorted) sum += std::exp(hit.score * scale - high);
  return high + std::log(sum);
}

// out[0 … n) += factor · the entries at `numbers`.
void AddScaled(EntryPointer numbers, float factor, int64_t n, float* out) {
  if (numbers.type() == EntryType::kFloat32) {
    const float* from = numbers.As<float>();
    for (int64_t j = 0; j < n; ++j) out[j] += factor * from[j];
  } else {
    const BFloat16* from = numbers.As<BFloat16>();
    for (int64_t j = 0; j < n; ++j) out[j] += factor * static_cast<float>(from[j]);
  }
}

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
  };
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
  // [n_rows, head_dim] of one KV head's group, row = position · group + head in group.
  static std::vector<float> GatherQueries(const Call& call, int64_t kv_head);
  absl::StatusOr<std::vector<TopK>> FindTop(const Call& call, int top_k, bool exact_only);
  // Candidates of all segments, scored again with the stored keys.
  absl::Status SearchIndexes(const Call& call, std::vector<TopK>* best);
  absl::Status AttendToTop(const Call& call, std::vector<TopK>* best, float* output, float* lse);
  absl::Status AttendDensely(const Call& call, float* output, float* lse);
  // Adds the mass of the kept keys, given the log-sum-exp of all memory keys seen.
  void CollectMass(const Call& call, std::vector<TopK>* best, const float* memory_lse);
  absl::Status AuditCall(const Call& call, std::vector<TopK>* kept);
  // Where an allowed stored slot lies: the number of its window in windows_, and its token there.
  struct Place {
    uint32_t window;
    int64_t token;
  };
  Place PlaceOf(int64_t slot) const;
  // What a segment's index found: [n_queries, n_heads, n_per_row].
  struct Candidates {
    Candidates(int64_t slot, int64_t n) : first_slot(slot), n_per_row(n) {}
    int64_t first_slot;
    int64_t n_per_row;
    std::vector<int64_t> ids;  // slots, less first_slot; −1: none
    std::vector<Place> places;
  };
  absl::Status Rescore(const Call& call, std::vector<Candidates>* found, std::vector<TopK>* best);
  // Halves of blocks that calls use, by number in windows_; empty: not loaded.
  struct BlockTable {
    std::vector<HalfBlock> blocks;
    std::vector<uint32_t> wanted;  // what is used now, each once
    std::vector<bool> is_wanted;
  };
  void Want(uint32_t window, BlockTable* table) const;
  // Loads what is wanted and not there, in parallel.
  absl::Status LoadWanted(int memory_layer, bool keys, BlockTable* table);
  // Ends the use: blocks stay where there is room for all, and are left to the cache where not.
  void EndUse(BlockTable* table) const;
  EntryPointer SessionValue(int memory_layer, int64_t kv_head, int64_t slot) const;

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

MemorySearcherImpl::Place MemorySearcherImpl::PlaceOf(int64_t slot) const {
  const auto at = static_cast<Slot>(slot);
  const Slot first = generation_->windows[windows_.front()].slot_begin;
  FOVEA_CHECK(at >= first);
  const size_t bucket = (at - first) / kBucketSlots;
  FOVEA_CHECK(bucket < bucket_windows_.size());
  uint32_t i = bucket_windows_[bucket];
  while (i + 1 < windows_.size() && generation_->windows[windows_[i + 1]].slot_begin <= at) ++i;
  return {i, static_cast<int64_t>(at - generation_->windows[windows_[i]].slot_begin)};
}

void MemorySearcherImpl::Want(uint32_t window, BlockTable* table) const {
  if (table->is_wanted.empty()) {
    table->is_wanted.resize(windows_.size());
    table->blocks.resize(windows_.size());
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
  for (size_t i = 0; i < missing.size(); ++i) table->blocks[missing[i]] = std::move((*loaded)[i]);
  return absl::OkStatus();
}

void MemorySearcherImpl::EndUse(BlockTable* table) const {
  for (const uint32_t window : table->wanted) {
    table->is_wanted[window] = false;
    if (!keep_blocks_) table->blocks[window] = {};
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
          auto block = keys ? cache().Keys(window.slot_begin, memory_layer)
                            : cache().Values(window.slot_begin, memory_layer);
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

std::vector<float> MemorySearcherImpl::GatherQueries(const Call& call, int64_t kv_head) {
  const model::MemoryQuery& query = call.query;
  const int64_t d = query.head_dim;
  std::vector<float> rows(static_cast<size_t>(call.n_rows * d));
  for (int64_t t = 0; t < query.n_queries; ++t) {
    std::copy_n(query.queries + (t * query.n_heads + kv_head * call.group) * d, call.group * d,
                rows.data() + t * call.group * d);
  }
  return rows;
}

absl::StatusOr<std::vector<TopK>> MemorySearcherImpl::FindTop(const Call& call, int top_k,
                                                              bool exact_only) {
  const model::MemoryQuery& query = call.query;
  std::vector<TopK> best;
  std::vector<std::vector<float>> rows;
  for (int64_t head = 0; head < query.n_kv_heads; ++head) {
    best.emplace_back(call.n_rows, top_k);
    rows.push_back(GatherQueries(call, head));
  }
  RETURN_IF_ERROR(ForEachRuns(query.memory_layer, exact_only, [&](const LoadedRuns& loaded) {
    for (int64_t head = 0; head < query.n_kv_heads; ++head) {
      RETURN_IF_ERROR(compute::KeyScan(*device_,
                                       {.queries = rows[head].data(),
                                        .n_queries = call.n_rows,
                                        .query_stride = query.head_dim,
                                        .head_dim = query.head_dim,
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
  std::vector<Candidates> found;
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
    args.n_candidates = std::max(effort.n_candidates, options_.top_k);
    args.n_probe = effort.n_probe;
    if (!searched.allowed_bits.empty()) args.filter.bits = &searched.allowed_bits;
    Candidates& candidates =
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

absl::Status MemorySearcherImpl::Rescore(const Call& call, std::vector<Candidates>* found,
                                         std::vector<TopK>* best) {
  const model::MemoryQuery& query = call.query;
  // Which windows are needed, those in parallel, then the rows.
  BlockTable& table = keys_[static_cast<size_t>(query.memory_layer)];
  for (Candidates& candidates : *found) {
    candidates.places.resize(candidates.ids.size());
    for (size_t i = 0; i < candidates.ids.size(); ++i) {
      if (candidates.ids[i] < 0) continue;
      candidates.places[i] = PlaceOf(candidates.first_slot + candidates.ids[i]);
      Want(candidates.places[i].window, &table);
    }
  }
  RETURN_IF_ERROR(LoadWanted(query.memory_layer, true, &table));
  device_->threads().ParallelFor(
      query.n_queries * query.n_heads, 2, [&](int64_t begin, int64_t end, int) {
        std::vector<EntryPointer> keys;
        std::vector<int64_t> slots;
        std::vector<float> scores;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t h = i % query.n_heads;
          const int64_t kv_head = h / call.group;
          keys.clear();
          slots.clear();
          for (const Candidates& candidates : *found) {
            for (int64_t c = i * candidates.n_per_row; c < (i + 1) * candidates.n_per_row; ++c) {
              const int64_t id = candidates.ids[static_cast<size_t>(c)];
              if (id < 0) continue;
              const Place place = candidates.places[static_cast<size_t>(c)];
              const int64_t n_tokens = generation_->windows[windows_[place.window]].n_tokens;
              keys.push_back(table.blocks[place.window].data() +
                             (kv_head * n_tokens + place.token) * query.head_dim);
              slots.push_back(candidates.first_slot + id);
            }
          }
          scores.resize(keys.size());
          compute::KeyScores(query.queries + i * query.head_dim, query.head_dim, keys, scores);
          // Rows of a list are apart, so threads may push into different ones at once.
          TopK& top = (*best)[static_cast<size_t>(kv_head)];
          const int64_t row = i / query.n_heads * call.group + h % call.group;
          for (size_t c = 0; c < slots.size(); ++c) top.Push(row, {scores[c], slots[c]});
        }
      });
  EndUse(&table);
  return absl::OkStatus();
}

absl::Status MemorySearcherImpl::AttendToTop(const Call& call, std::vector<TopK>* best,
                                             float* output, float* lse) {
  const model::MemoryQuery& query = call.query;
  const int64_t d = query.head_dim;
  BlockTable& table = values_[static_cast<size_t>(query.memory_layer)];
  for (TopK& top : *best) {
    for (int64_t row = 0; row < call.n_rows; ++row) {
      for (const ScoredId& hit : top.Sorted(row)) {
        if (hit.id < kSessionSlots) Want(PlaceOf(hit.id).window, &table);
      }
    }
  }
  RETURN_IF_ERROR(LoadWanted(query.memory_layer, false, &table));

  const int64_t n_all = query.n_queries * query.n_heads;
  device_->threads().ParallelFor(n_all, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / query.n_heads;
      const int64_t h = i % query.n_heads;
      const int64_t kv_head = h / call.group;
      const std::span<const ScoredId> hits =
          (*best)[kv_head].Sorted(t * call.group + h % call.group);
      float* out = output + i * d;
      std::fill_n(out, d, 0.0f);
      lse[i] = LogSumExp(hits, query.scale);
      for (const ScoredId& hit : hits) {
        const float weight = std::exp(hit.score * query.scale - lse[i]);
        EntryPointer value;
        if (hit.id >= kSessionSlots) {
          value = SessionValue(query.memory_layer, kv_head, hit.id);
        } else {
          const Place place = PlaceOf(hit.id);
          const int64_t n_tokens = generation_->windows[windows_[place.window]].n_tokens;
          value = table.blocks[place.window].data() + (kv_head * n_tokens + place.token) * d;
        }
        AddScaled(value, weight, d, out);
      }
    }
  });
  EndUse(&table);
  return absl::OkStatus();
}

EntryPointer MemorySearcherImpl::SessionValue(int memory_layer, int64_t kv_head,
                                              int64_t slot) const {
  for (const SessionWindow& window : session_) {
    const int64_t offset = slot - window.first_slot;
    if (offset < 0 || offset >= window.n_tokens) continue;
    const storage::Block& block = window.blocks[memory_layer];
    return block.values.data() + (kv_head * window.n_tokens + offset) * head_dim_;
  }
  FOVEA_CHECK(false);
  return nullptr;
}

absl::Status MemorySearcherImpl::AttendDensely(const Call& call, float* output, float* lse) {
  const model::MemoryQuery& query = call.query;
  const int64_t n_all = query.n_queries * query.n_heads;
  const int64_t d = query.head_dim;
  std::fill_n(output, n_all * d, 0.0f);
  std::fill_n(lse, n_all, kNegativeInfinity);
  std::vector<float> part_output(static_cast<size_t>(n_all * d));
  std::vector<float> part_lse(static_cast<size_t>(n_all));
  std::vector<float> keys;
  std::vector<float> values;
  // To the tokens [first, end) of a block of n_tokens.
  const auto attend = [&](EntryPointer block_keys, EntryPointer block_values, int64_t n_tokens,
                          int64_t first, int64_t end) -> absl::Status {
    // Stored heads outermost; the op wants tokens outermost.
    keys.resize(static_cast<size_t>((end - first) * n_kv_heads_ * d));
    values.resize(keys.size());
    device_->threads().ParallelFor(end - first, 64, [&](int64_t from_token, int64_t to_token, int) {
      for (int64_t t = from_token; t < to_token; ++t) {
        for (int64_t h = 0; h < n_kv_heads_; ++h) {
          const int64_t from = (h * n_tokens + first + t) * d;
          const int64_t to = (t * n_kv_heads_ + h) * d;
          EntriesToFloat(block_keys + from, keys.data() + to, static_cast<size_t>(d));
          EntriesToFloat(block_values + from, values.data() + to, static_cast<size_t>(d));
        }
      }
    });
    RETURN_IF_ERROR(compute::Attention(*device_, {.queries = query.queries,
                                                  .keys = keys.data(),
                                                  .values = values.data(),
                                                  .n_queries = query.n_queries,
                                                  .n_keys = end - first,
                                                  .n_heads = query.n_heads,
                                                  .n_kv_heads = query.n_kv_heads,
                                                  .head_dim = d,
                                                  .scale = query.scale,
                                                  .causal = false,
                                                  .output = part_output.data(),
                                                  .lse = part_lse.data()}));
    return compute::MergePartials(*device_, {.output = output,
                                             .lse = lse,
                                             .other_output = part_output.data(),
                                             .other_lse = part_lse.data(),
                                             .n_rows = n_all,
                                             .head_dim = d});
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

void MemorySearcherImpl::CollectMass(const Call& call, std::vector<TopK>* best,
                                     const float* memory_lse) {
  const model::MemoryQuery& query = call.query;
  auto& mass = mass_[query.memory_layer];
  for (int64_t t = 0; t < query.n_queries; ++t) {
    for (int64_t h = 0; h < query.n_heads; ++h) {
      const int64_t i = t * query.n_heads + h;
      const float local = query.local_lse == nullptr ? kNegativeInfinity : query.local_lse[i];
      const float total = LogAddExp(memory_lse[i], local);
      for (const ScoredId& hit : (*best)[h / call.group].Sorted(t * call.group + h % call.group)) {
        if (hit.id < kSessionSlots) mass[hit.id] += std::exp(hit.score * query.scale - total);
      }
    }
  }
  if (query.memory_layer == 0) n_rows_ += query.n_queries * query.n_heads;
}

absl::Status MemorySearcherImpl::Attend(const model::MemoryQuery& query, float* output,
                                        float* lse) {
  if (query.n_kv_heads != n_kv_heads_ || query.head_dim != head_dim_ ||
      query.memory_layer >= n_mem_layers_) {
    return absl::FailedPreconditionError(
        StrCat("memory has ", n_mem_layers_, " layers of ", n_kv_heads_, " heads of ", head_dim_,
               ", the model asks layer ", query.memory_layer, " with ", query.n_kv_heads,
               " heads of ", query.head_dim, ": use the model that made the memory"));
  }
  RETURN_IF_ERROR(options_.progress.CheckCancelled());
  const int64_t group = query.n_heads / query.n_kv_heads;
  const Call call{query, group, query.n_queries * group};
  ASSIGN_OR_RETURN(std::vector<TopK> best, FindTop(call, options_.top_k, false));
  if (options_.mode == SearchMode::kDense) {
    RETURN_IF_ERROR(AttendDensely(call, output, lse));
  } else {
    RETURN_IF_ERROR(AttendToTop(call, &best, output, lse));
  }
  CollectMass(call, &best, lse);
  if (options_.audit) RETURN_IF_ERROR(AuditCall(call, &best));
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
  const Call sampled{sample, call.group, n * call.group};
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
