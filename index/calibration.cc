#include "index/calibration.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "index/best_keys.h"
#include "index/device_index.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {
namespace {

using compute::KeyRun;
using compute::ScoredId;
using compute::TopK;

// The softmax that tells confident queries: over so many best keys, half of the mass on one.
constexpr int kSoftmaxKeys = 16;
constexpr double kConfidentMass = 0.5;

// Few candidates suffice where distances are those of the keys themselves; codes blur the order.
constexpr int kMinCandidates = 32;
constexpr int kMinCodedCandidates = 64;
constexpr int kMaxCandidates = 1024;
constexpr int kFewCandidates = 128;
// Enough for what a probe finds to be judged by the probe alone.
constexpr int kProbingCandidates = 512;
constexpr int kMinEfSearch = 16;

// Positions that efforts are judged by: more change the second digit behind the point, no more.
constexpr int64_t kMaxPositions = 512;
// Positions whose time is taken, one at a time.
constexpr int64_t kTimedPositions = 8;

int64_t CountKeys(const std::vector<HeadKeys>& keys) {
  int64_t n = 0;
  if (!keys.empty()) {
    for (const KeyRun& run : keys[0]) n += run.n_keys;
  }
  return n;
}

const float* Query(const CalibrationQueries& queries, int64_t position, int64_t head) {
  return queries.queries.data() + (position * queries.n_heads + head) * queries.head_dim;
}

absl::Status CheckShapes(const std::vector<HeadKeys>& keys, const CalibrationQueries& queries) {
  const int64_t n_kv_heads = static_cast<int64_t>(keys.size());
  const bool fits = queries.n_queries >= 0 && queries.n_heads > 0 && queries.head_dim > 0 &&
                    n_kv_heads > 0 && queries.n_heads % n_kv_heads == 0 &&
                    queries.queries.size() ==
                        static_cast<size_t>(queries.n_queries * queries.n_heads * queries.head_dim);
  if (fits || queries.n_queries == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("calibration: ", queries.queries.size(), " values for ",
                                           queries.n_queries, " queries of ", queries.n_heads,
                                           " heads of ", queries.head_dim, ", want a multiple of ",
                                           n_kv_heads, " heads"));
}

// The positions of a sample where a head is confident, and the key that it must find.
struct Needles {
  struct Needle {
    int64_t row = 0;  // of [n_queries, n_heads] in `queries`
    int64_t id = 0;
  };
  CalibrationQueries queries;  // at most kMaxPositions, each with a needle
  std::vector<Needle> needles;
  int64_t n_confident = 0;  // in the whole sample
};

absl::Status ScanHead(compute::Device& device, const HeadKeys& keys,
                      const CalibrationQueries& queries, int64_t position, int64_t n_positions,
                      int64_t kv_head, int64_t group, TopK* best) {
  const int64_t dim = queries.head_dim;
  const compute::ConstView rows(Query(queries, position, kv_head * group),
                                {n_positions, group, dim});
  return compute::KeyScan(
      device, {.queries = rows.WithStrides({queries.n_heads * dim, dim, 1}), .runs = keys}, best);
}

// The keys that an index is built over and judged by.
struct Keys {
  const std::vector<HeadKeys>& on_host;
  std::optional<DeviceKeys> on_device;
  const DeviceKeys* copied() const { return on_device ? &*on_device : nullptr; }
};

absl::StatusOr<Keys> KeysFor(compute::Device& device, const std::vector<HeadKeys>& keys,
                             int64_t head_dim) {
  ASSIGN_OR_RETURN(std::optional<DeviceKeys> copied, DeviceKeys::Copy(device, keys, head_dim));
  return Keys{keys, std::move(copied)};
}

absl::StatusOr<Needles> FindNeedles(compute::Device& device, const Keys& keys,
                                    const CalibrationQueries& queries) {
  RETURN_IF_ERROR(CheckShapes(keys.on_host, queries));
  Needles result;
  result.queries = {{}, 0, queries.n_heads, queries.head_dim, queries.scale};
  if (queries.n_queries == 0) return result;
  std::vector<std::vector<Needles::Needle>> at(static_cast<size_t>(queries.n_queries));
  ASSIGN_OR_RETURN(
      const std::vector<ScoredId> best,
      FindBestKeys(device, keys.on_host, keys.copied(),
                   {Query(queries, 0, 0), {queries.n_queries, queries.n_heads, queries.head_dim}},
                   kSoftmaxKeys));
  for (int64_t row = 0; row < queries.n_queries * queries.n_heads; ++row) {
    const std::span<const ScoredId> top(best.data() + row * kSoftmaxKeys, kSoftmaxKeys);
    if (top[0].id < 0) continue;
    double sum = 0.0;
    for (const ScoredId& item : top) {
      if (item.id < 0) break;
      sum += std::exp(static_cast<double>(queries.scale) * (item.score - top[0].score));
    }
    if (1.0 < kConfidentMass * sum) continue;
    ++result.n_confident;
    at[static_cast<size_t>(row / queries.n_heads)].push_back({row % queries.n_heads, top[0].id});
  }
  std::vector<int64_t> positions;
  for (int64_t p = 0; p < queries.n_queries; ++p) {
    if (!at[static_cast<size_t>(p)].empty()) positions.push_back(p);
  }
  const int64_t n = static_cast<int64_t>(positions.size());
  const int64_t n_taken = std::min(n, kMaxPositions);
  for (int64_t i = 0; i < n_taken; ++i) {
    const int64_t p = positions[static_cast<size_t>(i * n / n_taken)];
    const float* begin = Query(queries, p, 0);
    result.queries.queries.insert(result.queries.queries.end(), begin,
                                  begin + queries.n_heads * queries.head_dim);
    for (Needles::Needle needle : at[static_cast<size_t>(p)]) {
      needle.row += i * queries.n_heads;
      result.needles.push_back(needle);
    }
  }
  result.queries.n_queries = n_taken;
  return result;
}

LayerSearchArgs SearchArgs(const CalibrationQueries& queries, int64_t position, int64_t n_positions,
                           Effort effort) {
  LayerSearchArgs args;
  args.queries = Query(queries, position, 0);
  args.n_queries = n_positions;
  args.n_heads = queries.n_heads;
  args.n_candidates = effort.n_candidates;
  args.n_probe = effort.n_probe;
  return args;
}

// What is judged: an index on the host, or its copy on a GPU, which finds the same.
struct Judged {
  const LayerIndex& index;
  const DeviceIndex* on_device = nullptr;  // null: the host searches
  // Larger efforts than the copy can make are the host's.
  absl::Status Search(compute::Device& device, const LayerSearchArgs& args, int64_t head_dim,
                      std::vector<int64_t>* candidates) const {
    if (on_device == nullptr || args.n_probe > kMaxDeviceProbe) {
      return index.Search(device.host(), args, candidates);
    }
    return SearchOnDevice(device, *on_device, index.n_kv_heads(), head_dim, args, candidates);
  }
};

absl::StatusOr<double> Recall(compute::Device& device, const Judged& judged, const Needles& needles,
                              Effort effort) {
  if (needles.needles.empty()) return 1.0;
  std::vector<int64_t> candidates;
  RETURN_IF_ERROR(judged.Search(device,
                                SearchArgs(needles.queries, 0, needles.queries.n_queries, effort),
                                needles.queries.head_dim, &candidates));
  int64_t n_found = 0;
  for (const Needles::Needle& needle : needles.needles) {
    const auto begin = candidates.begin() + needle.row * effort.n_candidates;
    const auto end = begin + effort.n_candidates;
    n_found += std::find(begin, end, needle.id) != end ? 1 : 0;
  }
  return static_cast<double>(n_found) / static_cast<double>(needles.needles.size());
}

// The smallest effort that reaches the target, or the largest, and its recall.
absl::StatusOr<std::pair<Effort, double>> FindEffort(compute::Device& device, const Judged& judged,
                                                     const Needles& needles, double target,
                                                     const Progress& progress) {
  const LayerIndex& index = judged.index;
  const auto [low, high] = index.ProbeRange();
  const bool is_graph = index.spec().find("HNSW") != std::string::npos &&
                        index.spec().find("IVF") == std::string::npos;
  int n_probe = 0;
  if (high > 0) {
    const auto reaches = [&](int probe) -> absl::StatusOr<bool> {
      RETURN_IF_ERROR(progress.CheckCancelled());
      ASSIGN_OR_RETURN(const double recall,
                       Recall(device, judged, needles, {probe, kProbingCandidates}));
      return recall >= target;
    };
    n_probe = std::clamp(is_graph ? kMinEfSearch : 1, low, high);
    while (true) {
      ASSIGN_OR_RETURN(const bool is_enough, reaches(n_probe));
      if (is_enough || n_probe == high) break;
      n_probe = std::min(2 * n_probe, high);
    }
    // It doubles from one step to the next; halfway back may do.
    if (n_probe >= 4 && n_probe < high) {
      ASSIGN_OR_RETURN(const bool is_enough, reaches(n_probe / 4 * 3));
      if (is_enough) n_probe = n_probe / 4 * 3;
    }
  }
  const bool is_coded = index.spec().find("SQ") != std::string::npos ||
                        index.spec().find("PQ") != std::string::npos || CodeBits(index.spec()) > 0;
  int n_candidates = is_coded ? kMinCodedCandidates : kMinCandidates;
  while (true) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    const Effort effort{n_probe, n_candidates};
    ASSIGN_OR_RETURN(const double recall, Recall(device, judged, needles, effort));
    if (recall >= target || n_candidates >= kMaxCandidates) return std::pair(effort, recall);
    n_candidates *= 2;
  }
}

// Where the keys of one head lie, by id.
class KeyLookup {
 public:
  KeyLookup(const HeadKeys& runs, int64_t head_dim) : runs_(runs), head_dim_(head_dim) {}
  EntryPointer Find(int64_t id) const {
    const auto after =
        std::upper_bound(runs_.begin(), runs_.end(), id,
                         [](int64_t wanted, const KeyRun& run) { return wanted < run.first_id; });
    const KeyRun& run = *std::prev(after);
    return run.keys + (id - run.first_id) * head_dim_;
  }

 private:
  const HeadKeys& runs_;
  const int64_t head_dim_;
};

// Seconds for kTimedPositions positions, one at a time: the shorter of two rounds, the first of
// which may find caches cold.
absl::StatusOr<double> TimePositions(const CalibrationQueries& queries,
                                     absl::FunctionRef<absl::Status(int64_t position)> search) {
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 2; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < kTimedPositions; ++i) {
      RETURN_IF_ERROR(search(i * queries.n_queries / kTimedPositions));
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

absl::StatusOr<double> TimeExact(compute::Device& device, const std::vector<HeadKeys>& keys,
                                 const CalibrationQueries& queries) {
  const int64_t group = queries.n_heads / static_cast<int64_t>(keys.size());
  return TimePositions(queries, [&](int64_t position) -> absl::Status {
    for (size_t kv_head = 0; kv_head < keys.size(); ++kv_head) {
      TopK best(group, kSoftmaxKeys);
      RETURN_IF_ERROR(ScanHead(device, keys[kv_head], queries, position, 1,
                               static_cast<int64_t>(kv_head), group, &best));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<double> TimeIndex(compute::Device& device, const LayerIndex& index,
                                 const std::vector<HeadKeys>& keys,
                                 const CalibrationQueries& queries, Effort effort) {
  const int64_t group = queries.n_heads / static_cast<int64_t>(keys.size());
  std::vector<int64_t> candidates;
  std::vector<EntryPointer> pointers;
  std::vector<float> scores;
  return TimePositions(queries, [&](int64_t position) -> absl::Status {
    RETURN_IF_ERROR(index.Search(device, SearchArgs(queries, position, 1, effort), &candidates));
    for (int64_t head = 0; head < queries.n_heads; ++head) {
      const KeyLookup lookup(keys[static_cast<size_t>(head / group)], queries.head_dim);
      pointers.clear();
      for (int64_t j = 0; j < effort.n_candidates; ++j) {
        const int64_t id = candidates[static_cast<size_t>(head * effort.n_candidates + j)];
        if (id >= 0) pointers.push_back(lookup.Find(id));
      }
      scores.resize(pointers.size());
      RETURN_IF_ERROR(compute::KeyScores(
          device, {Query(queries, position, head), {queries.head_dim}}, pointers, scores));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<CalibratedIndex> BuildJudged(compute::Device& device, const std::string& spec,
                                            const Keys& keys, int64_t head_dim,
                                            const CalibrationQueries& queries,
                                            const Needles& needles, double target,
                                            const Progress& progress) {
  CalibratedIndex result;
  result.spec = spec;
  ASSIGN_OR_RETURN(
      result.index,
      CodeBits(spec) > 0
          ? BuildCodedIndex(device, spec, keys.on_host, keys.copied(), head_dim, progress)
          : LayerIndex::Build(device, spec, keys.on_host, head_dim, progress));
  result.needle_recall.n_confident = needles.n_confident;
  // Answers of a CPU are what effort and time are about; a GPU scans in its own way, but where it
  // searches the index itself it finds the same in less time.
  compute::Device& host = device.host();
  std::unique_ptr<DeviceIndex> on_device;
  if (result.index->DeviceBytes(device) > 0 && !needles.needles.empty()) {
    absl::StatusOr<std::unique_ptr<DeviceIndex>> copied = result.index->CopyTo(device);
    // Where the GPU has no room for it, the host judges.
    if (!copied.ok() && !absl::IsResourceExhausted(copied.status())) return copied.status();
    if (copied.ok()) on_device = *std::move(copied);
  }
  ASSIGN_OR_RETURN(const auto effort,
                   FindEffort(device, {*result.index, on_device.get()}, needles, target, progress));
  result.effort = effort.first;
  result.needle_recall.recall = effort.second;
  if (queries.n_queries > 0 && CountKeys(keys.on_host) > 0) {
    ASSIGN_OR_RETURN(const double exact, TimeExact(host, keys.on_host, queries));
    ASSIGN_OR_RETURN(const double approximate,
                     TimeIndex(host, *result.index, keys.on_host, queries, result.effort));
    result.relative_cost = approximate / std::max(exact, 1e-9);
  }
  return result;
}

CalibratedIndex Exact(int64_t n_confident) {
  CalibratedIndex exact;
  exact.spec = "exact";
  exact.needle_recall = {1.0, n_confident};
  return exact;
}

absl::Status CheckHeadDim(int64_t head_dim, const CalibrationQueries& queries) {
  if (queries.n_queries == 0 || queries.head_dim == head_dim) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("calibration: queries of head_dim ", queries.head_dim,
                                           ", want that of the keys, ", head_dim));
}

absl::StatusOr<CalibratedIndex> Cheapest(compute::Device& device,
                                         const std::vector<std::string>& specs, const Keys& judging,
                                         int64_t head_dim, const CalibrationQueries& queries,
                                         const Needles& needles, double target,
                                         const Progress& progress) {
  CalibratedIndex best = Exact(needles.n_confident);
  if (needles.n_confident < kMinConfident) return best;
  bool has_codes = false;
  for (const std::string& spec : specs) {
    if (has_codes && CodeBits(spec) > 0) continue;
    absl::StatusOr<CalibratedIndex> built =
        BuildJudged(device, spec, judging, head_dim, queries, needles, target, progress);
    // A specification that does not fit these keys is one less to choose from.
    if (absl::IsInvalidArgument(built.status())) continue;
    RETURN_IF_ERROR(built.status());
    if (built->needle_recall.recall < target) continue;
    // More bits cannot be cheaper where few candidates suffice; where many are wanted, rescoring
    // them may cost more than reading longer codes.
    has_codes = has_codes || (CodeBits(spec) > 0 && built->effort.n_candidates <= kFewCandidates);
    if (built->relative_cost < best.relative_cost) {
      best = *std::move(built);
    }
  }
  return best;
}

}  // namespace

absl::StatusOr<NeedleRecall> MeasureNeedleRecall(compute::Device& device, const LayerIndex& index,
                                                 const std::vector<HeadKeys>& keys,
                                                 const CalibrationQueries& queries, Effort effort) {
  ASSIGN_OR_RETURN(const Keys judging, KeysFor(device, keys, queries.head_dim));
  ASSIGN_OR_RETURN(const Needles needles, FindNeedles(device, judging, queries));
  NeedleRecall result;
  result.n_confident = needles.n_confident;
  ASSIGN_OR_RETURN(result.recall, Recall(device, {index}, needles, effort));
  return result;
}

std::vector<std::string> AutoSpecs(int64_t n_keys) {
  std::vector<std::string> specs = {"Scan2", "Scan4", "Scan8"};
  if (n_keys < kAutoIvfTokens) return specs;
  // About four times the root of the number of keys, as FAISS advises; a power of two between.
  const double wanted = 4.0 * std::sqrt(static_cast<double>(std::max<int64_t>(n_keys, 1)));
  const uint64_t n_lists = std::bit_floor(static_cast<uint64_t>(wanted * 1.5));
  specs.push_back(StrCat("IVF", n_lists, ",SQ8"));
  return specs;
}

absl::StatusOr<CalibratedIndex> BuildCheapest(compute::Device& device,
                                              const std::vector<std::string>& specs,
                                              const std::vector<HeadKeys>& keys, int64_t head_dim,
                                              const CalibrationQueries& queries, double target,
                                              const Progress& progress) {
  RETURN_IF_ERROR(CheckHeadDim(head_dim, queries));
  ASSIGN_OR_RETURN(const Keys judging, KeysFor(device, keys, head_dim));
  ASSIGN_OR_RETURN(const Needles needles, FindNeedles(device, judging, queries));
  return Cheapest(device, specs, judging, head_dim, queries, needles, target, progress);
}

absl::StatusOr<CalibratedIndex> BuildCalibrated(compute::Device& device, const std::string& spec,
                                                const std::vector<HeadKeys>& keys, int64_t head_dim,
                                                const CalibrationQueries& queries, double target,
                                                const Progress& progress,
                                                const std::string& unjudged_spec) {
  RETURN_IF_ERROR(CheckHeadDim(head_dim, queries));
  const int64_t n_keys = CountKeys(keys);
  ASSIGN_OR_RETURN(const Keys judging, KeysFor(device, keys, head_dim));
  ASSIGN_OR_RETURN(const Needles needles, FindNeedles(device, judging, queries));
  const bool chooses = spec == "auto" && n_keys >= kAutoExactTokens;
  if (chooses && (unjudged_spec.empty() || needles.n_confident >= kMinConfident)) {
    return Cheapest(device, AutoSpecs(n_keys), judging, head_dim, queries, needles, target,
                    progress);
  }
  const std::string& chosen = chooses ? unjudged_spec : spec;
  if (chosen == "exact" || chosen == "auto") return Exact(needles.n_confident);
  return BuildJudged(device, chosen, judging, head_dim, queries, needles, target, progress);
}

}  // namespace fovea::index
