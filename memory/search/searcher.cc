#include "memory/search/searcher.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "compute/key_scan.h"
#include "compute/rescore.h"
#include "compute/top_k_attention.h"
#include "memory/search/audit.h"
#include "memory/search/dense_attention.h"
#include "memory/search/device_searcher.h"
#include "memory/search/search_plan.h"
#include "memory/search/searched_windows.h"

namespace fovea::memory {
namespace {

using compute::ConstView;
using compute::EntryPlace;
using compute::ScoredId;
using compute::TopK;

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// Candidates, of as many segments as that takes, whose windows are loaded and scored together: many
// enough to keep all threads busy, few enough (16 bytes each) for long prompts.
constexpr size_t kRescoredAtOnce = size_t{1} << 20;

class MemorySearcherImpl final : public MemorySearcher {
 public:
  MemorySearcherImpl(compute::Device* device, std::shared_ptr<const Generation> generation,
                     SearchOptions options, SearchPlan plan)
      : device_(device),
        generation_(std::move(generation)),
        options_(std::move(options)),
        indexed_(std::move(plan.indexed)),
        windows_(device, generation_, std::move(plan.windows), std::move(plan.scanned),
                 options_.progress),
        mass_(static_cast<size_t>(windows_.n_mem_layers())),
        audit_(windows_.n_mem_layers()) {}

  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override;
  // Neighbours that search the same keys share a read of them; a conversation with windows of its
  // own is asked alone.
  void AttendTogether(std::span<model::MemoryRequest> requests) override;
  absl::StatusOr<model::MemoryHits> FindTop(const model::MemoryQuery& query, int top_k) override;
  absl::Status AttendTo(const model::MemoryQuery& query, model::MemoryHits* hits, float* output,
                        float* lse) override;
  absl::Status AddMass(const model::MemoryQuery& query, model::MemoryHits* hits,
                       const float* lse) override;
  void AddSessionWindow(model::EncodedWindow window) override { windows_.AddSessionWindow(window); }
  size_t n_session_windows() const override { return windows_.n_session_windows(); }
  void TruncateSessionWindows(size_t n) override { windows_.TruncateSession(n); }
  std::vector<SlotMass> Mass() const override;
  int64_t n_rows() const override { return n_rows_; }
  void ResetMass() override;
  AuditResult Audit() const override { return audit_.Result(); }
  const Generation& generation() const override { return *generation_; }
  const QueryScope& scope() const override { return options_.scope; }
  bool Allows(Slot slot) const override { return windows_.Allows(slot); }
  uint64_t n_tokens() const override { return windows_.n_stored_tokens(); }

 private:
  // The parts of one call, in one place.
  struct Call {
    const model::MemoryQuery& query;
    int64_t group;   // query heads that share a KV head
    int64_t n_rows;  // n_queries · group: rows of a KV head's scan
    explicit Call(const model::MemoryQuery& q)
        : query(q), group(q.n_heads / q.n_kv_heads), n_rows(q.n_queries * group) {}
  };
  // Who asks some positions of a call.
  struct Asker {
    MemorySearcherImpl* searcher;
    int64_t n_queries;
  };
  absl::Status CheckQuery(const model::MemoryQuery& query) const;
  // Whether the request after `before`, both of searchers like this one, can join it in one search:
  // what each finds is then the same as alone.
  bool CanJoin(const model::MemoryRequest& before, const model::MemoryRequest& next) const;
  // One search for requests each of which can join the one before it. After an error nothing has
  // changed.
  absl::Status AttendAtOnce(std::span<model::MemoryRequest> requests);
  int NumKept() const {
    // No more than there are: room is taken for so many.
    const uint64_t n_keys = windows_.n_stored_tokens() + windows_.n_session_tokens();
    return static_cast<int>(std::clamp<uint64_t>(n_keys, 1, options_.top_k));
  }
  absl::StatusOr<model::MemoryHits> FindOwnTop(const model::MemoryQuery& query, int top_k);
  absl::StatusOr<std::vector<TopK>> FindTop(const Call& call, int top_k, bool exact_only);
  // Candidates of all segments, scored again with the stored keys.
  absl::Status SearchIndexes(const Call& call, std::vector<TopK>* best);
  absl::Status AttendToTop(const Call& call, std::vector<TopK>* best, float* output, float* lse);
  // Adds the mass of the kept keys to that of who asked, one after another, given the log-sum-exp
  // of all memory keys seen.
  absl::Status CollectMass(const Call& call, std::span<const Asker> askers, std::vector<TopK>* best,
                           const float* memory_lse);
  // What query head i of [n_queries, n_heads] kept, best first.
  static std::span<const ScoredId> Kept(const Call& call, std::vector<TopK>* best, int64_t i) {
    const int64_t head = i % call.query.n_heads;
    return (*best)[static_cast<size_t>(head / call.group)].Sorted(
        i / call.query.n_heads * call.group + head % call.group);
  }
  absl::Status AuditCall(const Call& call, std::vector<TopK>* kept);
  // What a segment's index found: [n_queries, n_heads, n_per_row].
  struct Found {
    Found(int64_t slot, int64_t n) : first_slot(slot), n_per_row(n) {}
    int64_t first_slot;
    int64_t n_per_row;
    std::vector<int64_t> ids;  // slots, less first_slot; −1: none
    std::vector<EntryPlace> places;
  };
  absl::Status Rescore(const Call& call, std::vector<Found>* found, std::vector<TopK>* best);

  compute::Device* device_;
  std::shared_ptr<const Generation> generation_;
  SearchOptions options_;
  std::vector<IndexedSegment> indexed_;
  // Where it is empty the searcher is neutral, whatever the model's shapes.
  SearchedWindows windows_;

  std::vector<absl::flat_hash_map<int64_t, float>> mass_;  // [n_mem_layers] slot → mass
  int64_t n_rows_ = 0;
  SearchAudit audit_;
};

absl::StatusOr<std::vector<TopK>> MemorySearcherImpl::FindTop(const Call& call, int top_k,
                                                              bool exact_only) {
  const model::MemoryQuery& query = call.query;
  std::vector<TopK> best;
  for (int64_t head = 0; head < query.n_kv_heads; ++head) best.emplace_back(call.n_rows, top_k);
  RETURN_IF_ERROR(
      windows_.ForEachRuns(query.memory_layer, exact_only, [&](const LoadedRuns& loaded) {
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
  for (const IndexedSegment& indexed : indexed_) {
    RETURN_IF_ERROR(options_.progress.CheckCancelled());
    const storage::SegmentRecord& record = indexed.segment->record;
    index::LayerSearchArgs args;
    args.queries = query.queries;
    args.n_queries = query.n_queries;
    args.n_heads = query.n_heads;
    const index::LayerIndex& layer = *indexed.segment->layers[query.memory_layer];
    const bool is_judged = layer.effort().n_candidates > 0;
    const index::Effort effort =
        is_judged ? layer.effort() : index::Effort{record.n_probe, record.n_candidates};
    args.n_candidates = std::max(effort.n_candidates, (*best)[0].top_k());
    args.n_probe = effort.n_probe;
    if (!indexed.allowed_bits.empty()) args.filter.bits = &indexed.allowed_bits;
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
  BlockTable& table = *windows_.keys(query.memory_layer);
  std::vector<compute::Candidates> candidates;
  for (Found& segment : *found) {
    segment.places.resize(segment.ids.size());
    for (size_t i = 0; i < segment.ids.size(); ++i) {
      if (segment.ids[i] < 0) continue;
      segment.places[i] = windows_.PlaceOf(segment.first_slot + segment.ids[i]);
      windows_.Want(segment.places[i].block, &table);
    }
    candidates.push_back({.first_id = segment.first_slot,
                          .n_per_row = segment.n_per_row,
                          .ids = segment.ids,
                          .places = segment.places});
  }
  RETURN_IF_ERROR(windows_.LoadWantedKeys(query.memory_layer));
  const absl::Status status = compute::Rescore(
      *device_,
      {.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
       .candidates = candidates,
       .keys = {table.entries}},
      *best);
  windows_.EndUse(&table);
  return status;
}

absl::Status MemorySearcherImpl::AttendToTop(const Call& call, std::vector<TopK>* best,
                                             float* output, float* lse) {
  const model::MemoryQuery& query = call.query;
  BlockTable& table = *windows_.values(query.memory_layer);
  const auto top_k = static_cast<size_t>((*best)[0].top_k());
  const auto n_all = static_cast<size_t>(query.n_queries * query.n_heads);
  std::vector<EntryPlace> places(n_all * top_k);
  for (size_t i = 0; i < n_all; ++i) {
    size_t j = i * top_k;
    for (const ScoredId& hit : Kept(call, best, static_cast<int64_t>(i))) {
      places[j] = windows_.PlaceOf(hit.id);
      if (hit.id < kSessionSlots) windows_.Want(places[j].block, &table);
      ++j;
    }
  }
  RETURN_IF_ERROR(windows_.LoadWantedValues(query.memory_layer));
  const absl::Status status = compute::TopKAttention(
      *device_, {.kept = *best,
                 .values = {table.entries},
                 .places = places,
                 .scale = query.scale,
                 .output = {output, {query.n_queries, query.n_heads, query.head_dim}},
                 .lse = {lse, {query.n_queries, query.n_heads}}});
  windows_.EndUse(&table);
  return status;
}

absl::Status MemorySearcherImpl::CollectMass(const Call& call, std::span<const Asker> askers,
                                             std::vector<TopK>* best, const float* memory_lse) {
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
  int64_t i = 0;
  for (const Asker& asker : askers) {
    auto& mass = asker.searcher->mass_[query.memory_layer];
    const int64_t n_rows = asker.n_queries * query.n_heads;
    for (const int64_t end = i + n_rows; i < end; ++i) {
      const float* weight = weights.data() + i * top_k;
      for (const ScoredId& hit : Kept(call, best, i)) {
        if (hit.id < kSessionSlots) mass[hit.id] += *weight;
        ++weight;
      }
    }
    if (query.memory_layer == 0) asker.searcher->n_rows_ += n_rows;
  }
  return absl::OkStatus();
}

absl::Status MemorySearcherImpl::CheckQuery(const model::MemoryQuery& query) const {
  if (query.n_kv_heads != windows_.n_kv_heads() || query.head_dim != windows_.head_dim() ||
      query.memory_layer >= windows_.n_mem_layers()) {
    return absl::FailedPreconditionError(StrCat(
        "memory has ", windows_.n_mem_layers(), " layers of ", windows_.n_kv_heads(), " heads of ",
        windows_.head_dim(), ", the model asks layer ", query.memory_layer, " with ",
        query.n_kv_heads, " heads of ", query.head_dim, ": use the model that made the memory"));
  }
  return options_.progress.CheckCancelled();
}

absl::StatusOr<model::MemoryHits> MemorySearcherImpl::FindTop(const model::MemoryQuery& query,
                                                              int top_k) {
  if (options_.audit) {
    return absl::UnimplementedError(
        "audits of shards on a CPU: audit each memory by itself, or search them on a GPU");
  }
  return FindOwnTop(query, top_k);
}

absl::StatusOr<model::MemoryHits> MemorySearcherImpl::FindOwnTop(const model::MemoryQuery& query,
                                                                 int top_k) {
  const Call call(query);
  if (windows_.empty()) {
    return model::MemoryHits(static_cast<size_t>(query.n_kv_heads), TopK(call.n_rows, top_k));
  }
  RETURN_IF_ERROR(CheckQuery(query));
  return FindTop(call, top_k, false);
}

absl::Status MemorySearcherImpl::AttendTo(const model::MemoryQuery& query, model::MemoryHits* hits,
                                          float* output, float* lse) {
  if (windows_.empty()) {
    std::fill_n(output, query.n_queries * query.n_heads * query.head_dim, 0.0f);
    std::fill_n(lse, query.n_queries * query.n_heads, kNegativeInfinity);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckQuery(query));
  const Call call(query);
  return options_.mode == SearchMode::kDense ? AttendDensely(*device_, windows_, query, output, lse)
                                             : AttendToTop(call, hits, output, lse);
}

absl::Status MemorySearcherImpl::AddMass(const model::MemoryQuery& query, model::MemoryHits* hits,
                                         const float* lse) {
  if (windows_.empty()) {
    if (query.memory_layer == 0) n_rows_ += query.n_queries * query.n_heads;
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckQuery(query));
  const Asker self{this, query.n_queries};
  return CollectMass(Call(query), {&self, 1}, hits, lse);
}

absl::Status MemorySearcherImpl::Attend(const model::MemoryQuery& query, float* output,
                                        float* lse) {
  RETURN_IF_ERROR(CheckQuery(query));
  ASSIGN_OR_RETURN(model::MemoryHits hits, FindOwnTop(query, NumKept()));
  RETURN_IF_ERROR(AttendTo(query, &hits, output, lse));
  RETURN_IF_ERROR(AddMass(query, &hits, lse));
  if (options_.audit) RETURN_IF_ERROR(AuditCall(Call(query), &hits));
  return absl::OkStatus();
}

void MemorySearcherImpl::AttendTogether(std::span<model::MemoryRequest> requests) {
  model::AttendInRuns(
      requests,
      [](const model::MemoryRequest& before, const model::MemoryRequest& next) {
        const auto* const own = dynamic_cast<const MemorySearcherImpl*>(before.memory);
        return own != nullptr && own->CanJoin(before, next);
      },
      [](std::span<model::MemoryRequest> joined) {
        auto& first = static_cast<MemorySearcherImpl&>(*joined[0].memory);
        const bool is_done = first.AttendAtOnce(joined).ok();
        for (model::MemoryRequest& request : joined) {
          // An error may be of one of them (a question that was cancelled, a damaged window that
          // others do not look into): each has its own.
          request.status = is_done
                               ? absl::OkStatus()
                               : request.memory->Attend(request.query, request.output, request.lse);
        }
      });
}

bool MemorySearcherImpl::CanJoin(const model::MemoryRequest& before,
                                 const model::MemoryRequest& next) const {
  const auto* const other = dynamic_cast<const MemorySearcherImpl*>(next.memory);
  if (other == nullptr || other == this) return false;
  const auto is_plain = [](const MemorySearcherImpl& searcher) {
    return !searcher.windows_.empty() && searcher.n_session_windows() == 0 &&
           searcher.options_.mode != SearchMode::kDense && !searcher.options_.audit;
  };
  const auto is_same_in_batches = [&](const IndexedSegment& indexed) {
    return indexed.segment->layers[before.query.memory_layer]->is_same_in_batches();
  };
  // Of one generation and scope, so of the same plan.
  return is_plain(*this) && is_plain(*other) && other->device_ == device_ &&
         other->generation_ == generation_ && other->options_.mode == options_.mode &&
         other->options_.scope == options_.scope && other->NumKept() == NumKept() &&
         CheckQuery(before.query).ok() && other->CheckQuery(next.query).ok() &&
         std::all_of(indexed_.begin(), indexed_.end(), is_same_in_batches) &&
         model::FollowsInMemory(before, next);
}

absl::Status MemorySearcherImpl::AttendAtOnce(std::span<model::MemoryRequest> requests) {
  std::vector<Asker> askers;
  model::MemoryQuery all = requests[0].query;
  all.n_queries = 0;
  for (const model::MemoryRequest& request : requests) {
    askers.push_back({static_cast<MemorySearcherImpl*>(request.memory), request.query.n_queries});
    all.n_queries += request.query.n_queries;
  }
  const Call call(all);
  ASSIGN_OR_RETURN(model::MemoryHits hits, FindTop(call, NumKept(), false));
  RETURN_IF_ERROR(AttendToTop(call, &hits, requests[0].output, requests[0].lse));
  return CollectMass(call, askers, &hits, requests[0].lse);
}

absl::Status MemorySearcherImpl::AuditCall(const Call& call, std::vector<TopK>* kept) {
  const model::MemoryQuery& query = call.query;
  const int64_t n = std::min(query.n_queries, SearchAudit::kPositions);
  const int64_t first = query.n_queries - n;  // the last positions: where the answer begins
  model::MemoryQuery sample = query;
  sample.queries = query.queries + first * query.n_heads * query.head_dim;
  sample.local_lse = nullptr;
  sample.n_queries = n;
  const Call sampled(sample);
  std::vector<float> output(static_cast<size_t>(n * query.n_heads * query.head_dim));
  std::vector<float> dense_lse(static_cast<size_t>(n * query.n_heads));
  RETURN_IF_ERROR(AttendDensely(*device_, windows_, sample, output.data(), dense_lse.data()));
  ASSIGN_OR_RETURN(std::vector<TopK> exact, FindTop(sampled, SearchAudit::kBestKeys, true));
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t h = 0; h < query.n_heads; ++h) {
      const auto best = exact[h / call.group].Sorted(t * call.group + h % call.group);
      if (best.empty()) continue;
      audit_.Add(query.memory_layer,
                 {.kept = (*kept)[h / call.group].Sorted((first + t) * call.group + h % call.group),
                  .best = best,
                  .scale = query.scale,
                  .dense_lse = dense_lse[t * query.n_heads + h],
                  .keeps_all = options_.mode == SearchMode::kDense});
    }
  }
  return absl::OkStatus();
}

std::vector<SlotMass> MemorySearcherImpl::Mass() const {
  absl::flat_hash_map<int64_t, SlotMass> all;
  for (int layer = 0; layer < windows_.n_mem_layers(); ++layer) {
    for (const auto& [slot, mass] : mass_[layer]) {
      SlotMass& entry = all[slot];
      entry.slot = static_cast<Slot>(slot);
      entry.mass.resize(static_cast<size_t>(windows_.n_mem_layers()));
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

}  // namespace

absl::StatusOr<SearchMode> ParseSearchMode(std::string_view name) {
  if (name == "approximate") return SearchMode::kApproximate;
  if (name == "exact") return SearchMode::kExact;
  if (name == "dense") return SearchMode::kDense;
  return absl::InvalidArgumentError(
      StrCat("mode \"", name, "\": want approximate, exact or dense"));
}

absl::StatusOr<std::unique_ptr<MemorySearcher>> MemorySearcher::Create(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options) {
  std::string host_note;
  if (CanSearchOnDevice(*device, options)) {
    auto on_device = CreateDeviceSearcher(device, generation, options);
    // What does not fit is searched on the host, unless somebody counts on the device.
    const bool may_be_on_host =
        absl::IsUnimplemented(on_device.status()) ||
        (absl::IsResourceExhausted(on_device.status()) && !device->entry_limit_bytes().has_value());
    if (!may_be_on_host) return on_device;
    host_note = StrCat("the memory is searched on the CPU, which takes longer: ",
                       on_device.status().message());
  }
  ASSIGN_OR_RETURN(SearchPlan plan, PlanSearch(*generation, options.scope,
                                               options.mode == SearchMode::kApproximate));
  std::unique_ptr<MemorySearcher> on_host = std::make_unique<MemorySearcherImpl>(
      &device->host(), std::move(generation), options, std::move(plan));
  on_host->host_note_ = std::move(host_note);
  return on_host;
}

}  // namespace fovea::memory
