// The one place that knows FAISS. Written for 1.7.3 (Debian 12, Ubuntu 24.04) to 1.15.
#include <faiss/Index.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFastScan.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPQFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include "absl/functional/function_ref.h"
#include "index/index_file.h"
#include "index/key_ids.h"
#include "index/key_space.h"
#include "index/layer_index_kinds.h"

// Fast-scan inverted files take search parameters (their n_probe, our filter) since 1.8.
#define FOVEA_FAISS_AT_LEAST(major, minor) \
  (FAISS_VERSION_MAJOR > (major) ||        \
   (FAISS_VERSION_MAJOR == (major) && FAISS_VERSION_MINOR >= (minor)))

// OpenBLAS has a team of its own, which would fight over the cores with ours; other BLAS libraries
// lack the function.
extern "C" void openblas_set_num_threads(int n_threads) __attribute__((weak));

namespace fovea::index {
namespace {

// What a specification may ask for, so that a typing error does not eat all memory.
constexpr size_t kMaxSpecSize = 128;
constexpr int64_t kMaxSpecNumber = 1 << 20;
constexpr int64_t kMaxNeighbours = 512;  // of a node of HNSW: 4 KiB a key
constexpr int64_t kMaxCodeBits = 16;     // of a part of a product quantizer

// HNSW: beyond this a scan is faster.
constexpr int kMaxEfSearch = 4096;
constexpr int kDefaultEfSearch = 256;
constexpr int kEfConstruction = 40;

// Where FAISS cannot filter, so many results are fetched at most before the filter.
constexpr int64_t kMaxOverFetch = 1 << 16;

// Keys that are widened to float at a time.
constexpr int64_t kAddBatch = 16'384;
// FAISS asks for 39 a centroid, up to 256; in between, training time is what differs.
constexpr int64_t kTrainPerCentroid = 64;
constexpr int64_t kMinTrainKeys = 65'536;

// Query rows that one FAISS call gets. Fixed, so that the order of its sums, and with it the
// result, does not depend on the number of threads.
constexpr int64_t kRowsPerCall = 32;
constexpr int64_t kSingleRows = 16;  // up to this many, each row is shared out on its own

// What `body` returns, exceptions as a Status: FAISS reports bad input by exceptions.
absl::Status CatchAll(std::string_view action, absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(action, ": out of memory"));
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(StrCat(action, ": FAISS says: ", e.what()));
  }
}

// FAISS and its BLAS work on the calling thread alone.
void UseOneThread() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  });
  omp_set_num_threads(1);
}

// The structure behind transformations such as OPQ.
faiss::Index* Core(faiss::Index* index) {
  while (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) {
    index = transform->index;
  }
  return index;
}
const faiss::Index* Core(const faiss::Index* index) {
  return Core(const_cast<faiss::Index*>(index));
}

// How a structure is searched.
enum class Kind {
  kUnknown,    // not one of fovea's
  kScan,       // of all keys, with a filter
  kBlindScan,  // of all keys, without
  kIvf,
  kHnsw,
};

Kind KindOf(const faiss::Index* index) {
  const faiss::Index* core = Core(index);
  if (dynamic_cast<const faiss::IndexIVF*>(core) != nullptr) {
    if (dynamic_cast<const faiss::IndexIVFFastScan*>(core) != nullptr &&
        !FOVEA_FAISS_AT_LEAST(1, 8)) {
      return Kind::kUnknown;
    }
    return Kind::kIvf;
  }
  if (dynamic_cast<const faiss::IndexHNSW*>(core) != nullptr) return Kind::kHnsw;
  if (dynamic_cast<const faiss::IndexFlat*>(core) != nullptr ||
      dynamic_cast<const faiss::IndexScalarQuantizer*>(core) != nullptr) {
    return Kind::kScan;
  }
  if (dynamic_cast<const faiss::IndexPQ*>(core) != nullptr ||
      dynamic_cast<const faiss::IndexPQFastScan*>(core) != nullptr) {
    return Kind::kBlindScan;
  }
  return Kind::kUnknown;
}

bool WorksInL2(Kind kind) { return kind == Kind::kIvf || kind == Kind::kHnsw; }

absl::Status CheckSpecText(const std::string& spec) {
  if (spec.empty() || spec.size() > kMaxSpecSize) {
    return absl::InvalidArgumentError(
        StrCat("index specification of ", spec.size(), " characters, want 1 to ", kMaxSpecSize));
  }
  // FAISS takes any number: with none of something it divides by zero, and a graph whose nodes have
  // one neighbour has levels without end.
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 0; i < spec.size(); ++i) {
    if (!is_digit(spec[i])) continue;
    const std::string_view before = std::string_view(spec).substr(0, i);
    int64_t number = 0;
    for (; i < spec.size() && is_digit(spec[i]) && number <= kMaxSpecNumber; ++i) {
      number = number * 10 + (spec[i] - '0');
    }
    const bool is_graph = before.ends_with("HNSW");
    const int64_t least = is_graph ? 2 : 1;
    const int64_t most = is_graph                ? kMaxNeighbours
                         : before.ends_with('x') ? kMaxCodeBits
                                                 : kMaxSpecNumber;
    if (number < least || number > most) {
      return absl::InvalidArgumentError(StrCat("index specification \"", spec, "\": a number ",
                                               "after \"", before, "\" outside of ", least, " … ",
                                               most));
    }
  }
  return absl::OkStatus();
}

struct EmptyIndex {
  std::unique_ptr<faiss::Index> index;
  int64_t index_dim = 0;
  bool is_augmented = false;
};

// index_factory for the smallest dimension from `from` that the structure can divide.
absl::StatusOr<EmptyIndex> Factory(const std::string& spec, int64_t from,
                                   faiss::MetricType metric) {
  absl::Status first_error;
  // Only product quantisers divide it; those of up to 128 parts find a multiple within this.
  const int64_t end = spec.find("PQ") == std::string::npos ? from : from + 128;
  for (int64_t dim = from; dim <= end; dim = dim / 4 * 4 + 4) {
    EmptyIndex empty;
    const absl::Status status =
        CatchAll(StrCat("index specification \"", spec, "\""), [&]() -> absl::Status {
          empty.index.reset(faiss::index_factory(static_cast<int>(dim), spec.c_str(), metric));
          return absl::OkStatus();
        });
    if (status.ok() && empty.index != nullptr) {
      empty.index_dim = dim;
      empty.is_augmented = metric == faiss::METRIC_L2;
      return empty;
    }
    if (first_error.ok()) first_error = status;
  }
  return first_error;
}

absl::StatusOr<EmptyIndex> MakeEmpty(const std::string& spec, int64_t head_dim) {
  RETURN_IF_ERROR(CheckSpecText(spec));
  UseOneThread();
  absl::StatusOr<EmptyIndex> empty = Factory(spec, head_dim, faiss::METRIC_INNER_PRODUCT);
  if (!empty.ok() || WorksInL2(KindOf(empty->index.get()))) {
    // A multiple of 4 suits FAISS's loops.
    empty = Factory(spec, (head_dim + 1 + 3) / 4 * 4, faiss::METRIC_L2);
    if (empty.ok() && !WorksInL2(KindOf(empty->index.get()))) {
      empty = absl::InvalidArgumentError(
          StrCat("index specification \"", spec, "\": cannot find inner products"));
    }
  }
  RETURN_IF_ERROR(empty.status());
  if (KindOf(empty->index.get()) == Kind::kUnknown) {
    return absl::InvalidArgumentError(StrCat(
        "index specification \"", spec, "\": not a structure that fovea searches with FAISS ",
        FaissVersion(), ", want Flat, SQ…, PQ…, IVF… or HNSW…, with or without OPQ or PCA"));
  }
  return empty;
}

// Silences FAISS's advice on sample sizes and keeps its training short: no minutes of annealing for
// polysemous codes, a way of searching that is not used here.
void SetTraining(faiss::Index* core) {
  const auto set = [](faiss::ClusteringParameters& parameters) {
    parameters.min_points_per_centroid = 1;
    parameters.max_points_per_centroid = kTrainPerCentroid;
  };
  if (auto* ivf = dynamic_cast<faiss::IndexIVF*>(core)) set(ivf->cp);
  if (auto* ivf_pq = dynamic_cast<faiss::IndexIVFPQ*>(core)) {
    ivf_pq->pq.cp.min_points_per_centroid = 1;
    ivf_pq->do_polysemous_training = false;
  }
  auto* pq = dynamic_cast<faiss::IndexPQ*>(core);
  if (auto* hnsw = dynamic_cast<faiss::IndexHNSW*>(core)) {
    pq = dynamic_cast<faiss::IndexPQ*>(hnsw->storage);
    hnsw->hnsw.efConstruction = kEfConstruction;
  }
  if (pq != nullptr) {
    pq->pq.cp.min_points_per_centroid = 1;
    pq->do_polysemous_training = false;
  }
  if (auto* fast = dynamic_cast<faiss::IndexPQFastScan*>(core)) {
    fast->pq.cp.min_points_per_centroid = 1;
  }
}

int64_t TrainingSize(const faiss::Index* core, int64_t n_keys) {
  int64_t wanted = kMinTrainKeys;
  if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(core)) {
    wanted = std::max(wanted, static_cast<int64_t>(ivf->nlist) * kTrainPerCentroid);
  }
  return std::min(wanted, n_keys);
}

// Tells FAISS by position which keys the filter allows.
class PositionSelector final : public faiss::IDSelector {
 public:
  PositionSelector(const KeyIds& ids, const IdFilter& filter) : ids_(ids), filter_(filter) {}
  bool is_member(int64_t position) const override { return filter_.Allows(ids_.At(position)); }

 private:
  const KeyIds& ids_;
  const IdFilter& filter_;
};

// Hands FAISS's bytes on. FAISS ends with an exception when fewer are taken than given.
class SinkWriter final : public faiss::IOWriter {
 public:
  explicit SinkWriter(BlobSink sink) : sink_(sink) {}
  size_t operator()(const void* data, size_t size, size_t n) override {
    if (status_.ok() && size * n > 0) {
      status_ = sink_({static_cast<const char*>(data), size * n});
    }
    return status_.ok() ? n : 0;
  }
  const absl::Status& status() const { return status_; }

 private:
  BlobSink sink_;
  absl::Status status_;
};

class BytesReader final : public faiss::IOReader {
 public:
  explicit BytesReader(std::string_view bytes) : bytes_(bytes) {}
  size_t operator()(void* data, size_t size, size_t n) override {
    if (size == 0 || n == 0) return n;
    n = std::min(n, bytes_.size() / size);
    std::memcpy(data, bytes_.data(), size * n);
    bytes_.remove_prefix(size * n);
    return n;
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

struct Head {
  KeySpace space;
  std::unique_ptr<faiss::Index> index;  // null when there are no keys
};

class FaissLayerIndex final : public LayerIndex {
 public:
  FaissLayerIndex(std::string spec, int64_t head_dim, int64_t index_dim, bool is_augmented,
                  KeyIds ids, std::vector<Head> heads)
      : spec_(std::move(spec)),
        head_dim_(head_dim),
        index_dim_(index_dim),
        is_augmented_(is_augmented),
        ids_(std::move(ids)),
        heads_(std::move(heads)),
        kind_(ids_.size() > 0 ? KindOf(heads_[0].index.get()) : Kind::kScan) {}

  absl::Status Save(const std::filesystem::path& path) const override;
  absl::Status Search(compute::Device& device, const LayerSearchArgs& args,
                      std::vector<int64_t>* candidates) const override;
  const std::string& spec() const override { return spec_; }
  int64_t n_kv_heads() const override { return static_cast<int64_t>(heads_.size()); }
  int64_t n_keys() const override { return ids_.size(); }
  std::pair<int, int> ProbeRange() const override;

 private:
  // Rows of queries of one head, mapped already, and where their labels go.
  struct Rows {
    const float* queries;  // [n, index_dim]
    int64_t n;
    int64_t n_candidates;
    int effort;
    const IdFilter* filter;  // null: everything
    int64_t n_wanted;        // candidates that there can be
  };
  // labels = [n, n_candidates] positions, −1 at the end of a row that found fewer.
  void SearchRows(const Head& head, const Rows& rows, int64_t* labels) const;
  // One call of FAISS.
  void SearchOnce(const faiss::Index* core, const float* queries, int64_t n, int64_t n_results,
                  int effort, faiss::IDSelector* selector, int64_t* labels) const;
  int Effort(int n_probe) const;

  const std::string spec_;
  const int64_t head_dim_;
  const int64_t index_dim_;
  const bool is_augmented_;
  const KeyIds ids_;
  const std::vector<Head> heads_;
  const Kind kind_;
};

std::pair<int, int> FaissLayerIndex::ProbeRange() const {
  if (kind_ == Kind::kHnsw) return {1, kMaxEfSearch};
  if (kind_ == Kind::kIvf) {
    const auto* ivf = static_cast<const faiss::IndexIVF*>(Core(heads_[0].index.get()));
    return {1, static_cast<int>(ivf->nlist)};
  }
  return {0, 0};
}

int FaissLayerIndex::Effort(int n_probe) const {
  const auto [low, high] = ProbeRange();
  if (high == 0) return 0;
  if (n_probe <= 0) {
    // Nobody measured: what the index study found enough on real keys.
    return kind_ == Kind::kHnsw ? kDefaultEfSearch : std::max(1, (high + 15) / 16);
  }
  return std::clamp(n_probe, low, high);
}

void FaissLayerIndex::SearchOnce(const faiss::Index* core, const float* queries, int64_t n,
                                 int64_t n_results, int effort, faiss::IDSelector* selector,
                                 int64_t* labels) const {
  std::vector<float> distances(static_cast<size_t>(n * n_results));
  switch (kind_) {
    case Kind::kIvf: {
      faiss::SearchParametersIVF parameters;
      parameters.sel = selector;
      parameters.nprobe = static_cast<size_t>(effort);
      core->search(n, queries, n_results, distances.data(), labels, &parameters);
      break;
    }
    case Kind::kHnsw: {
      faiss::SearchParametersHNSW parameters;
      parameters.sel = selector;
      parameters.efSearch = effort;
      if (effort <= n_results) {
        core->search(n, queries, n_results, distances.data(), labels, &parameters);
        break;
      }
      // FAISS 1.7 sizes its queue by the number of results alone, whatever efSearch says.
      distances.resize(static_cast<size_t>(n) * static_cast<size_t>(effort));
      std::vector<int64_t> all(distances.size());
      core->search(n, queries, effort, distances.data(), all.data(), &parameters);
      for (int64_t row = 0; row < n; ++row) {
        std::copy_n(all.data() + row * effort, n_results, labels + row * n_results);
      }
      break;
    }
    case Kind::kScan: {
      faiss::SearchParameters parameters;
      parameters.sel = selector;
      core->search(n, queries, n_results, distances.data(), labels,
                   selector != nullptr ? &parameters : nullptr);
      break;
    }
    default:
      core->search(n, queries, n_results, distances.data(), labels);
      break;
  }
}

void FaissLayerIndex::SearchRows(const Head& head, const Rows& rows, int64_t* labels) const {
  const faiss::Index* index = head.index.get();
  const float* queries = rows.queries;
  std::vector<std::unique_ptr<const float[]>> transformed;
  while (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(index)) {
    const float* next = transform->apply_chain(rows.n, queries);
    if (next != queries) transformed.emplace_back(next);
    queries = next;
    index = transform->index;
  }
  const int64_t k = rows.n_candidates;
  if (rows.filter == nullptr) {
    SearchOnce(index, queries, rows.n, k, rows.effort, nullptr, labels);
    return;
  }
  PositionSelector selector(ids_, *rows.filter);
  if (kind_ == Kind::kScan) {
    SearchOnce(index, queries, rows.n, k, rows.effort, &selector, labels);
    return;
  }
  // What a filter allows may lie where a query would not look: rows that found too little look
  // further. Structures that cannot filter fetch more and drop what is not allowed.
  int64_t max_effort =
      kind_ == Kind::kBlindScan ? std::min(ids_.size(), kMaxOverFetch) : ProbeRange().second;
  // A graph leads to what is near the query, allowed or not. The vectors behind it are scanned
  // instead, which costs little where few are allowed.
  const faiss::Index* storage = nullptr;
  if (kind_ == Kind::kHnsw) {
    storage = static_cast<const faiss::IndexHNSW*>(index)->storage;
    if (KindOf(storage) == Kind::kScan) {
      max_effort = rows.effort;
    } else {
      storage = nullptr;
    }
  }
  int64_t effort = kind_ == Kind::kBlindScan ? std::min(4 * k, max_effort) : rows.effort;
  std::vector<int64_t> pending(static_cast<size_t>(rows.n));
  for (size_t i = 0; i < pending.size(); ++i) pending[i] = static_cast<int64_t>(i);
  std::vector<float> pending_queries;
  std::vector<int64_t> found;
  const size_t dim = static_cast<size_t>(index->d);
  while (true) {
    const int64_t n = static_cast<int64_t>(pending.size());
    const int64_t n_results = kind_ == Kind::kBlindScan ? effort : k;
    pending_queries.clear();
    for (const int64_t row : pending) {
      const float* query = queries + static_cast<size_t>(row) * dim;
      pending_queries.insert(pending_queries.end(), query, query + dim);
    }
    found.assign(static_cast<size_t>(n * n_results), -1);
    SearchOnce(index, pending_queries.data(), n, n_results, static_cast<int>(effort),
               kind_ == Kind::kBlindScan ? nullptr : &selector, found.data());
    std::vector<int64_t> unfilled;
    for (int64_t i = 0; i < n; ++i) {
      int64_t* out = labels + pending[static_cast<size_t>(i)] * k;
      int64_t n_found = 0;
      for (int64_t j = 0; j < n_results && n_found < k; ++j) {
        const int64_t label = found[static_cast<size_t>(i * n_results + j)];
        if (label >= 0 && selector.is_member(label)) out[n_found++] = label;
      }
      std::fill(out + n_found, out + k, -1);
      if (n_found < rows.n_wanted) unfilled.push_back(pending[static_cast<size_t>(i)]);
    }
    if (unfilled.empty() || effort >= max_effort) {
      pending = std::move(unfilled);
      break;
    }
    pending = std::move(unfilled);
    effort = std::min(4 * effort, max_effort);
  }
  if (pending.empty() || storage == nullptr) return;
  faiss::SearchParameters parameters;
  parameters.sel = &selector;
  std::vector<float> distances(static_cast<size_t>(k));
  for (const int64_t row : pending) {
    storage->search(1, queries + static_cast<size_t>(row) * dim, k, distances.data(),
                    labels + row * k, &parameters);
  }
}

absl::Status FaissLayerIndex::Search(compute::Device& device, const LayerSearchArgs& args,
                                     std::vector<int64_t>* candidates) const {
  const int64_t n_kv_heads = this->n_kv_heads();
  if (args.n_heads < 1 || args.n_heads % n_kv_heads != 0 || args.n_candidates < 1 ||
      args.n_queries < 0) {
    return absl::InvalidArgumentError(StrCat("index search: ", args.n_queries, " queries of ",
                                             args.n_heads, " heads, ", args.n_candidates,
                                             " candidates; want a multiple of ", n_kv_heads,
                                             " heads and at least one candidate"));
  }
  const int64_t k = args.n_candidates;
  candidates->assign(static_cast<size_t>(args.n_queries * args.n_heads * k), -1);
  int64_t n_wanted = std::min(k, ids_.size());
  if (args.filter.bits != nullptr) {
    const std::vector<uint64_t>& bits = *args.filter.bits;
    if (static_cast<int64_t>(bits.size()) < (ids_.end() + 63) / 64) {
      return absl::InvalidArgumentError(StrCat("index search: the filter has ", bits.size(),
                                               " words, want bits up to id ", ids_.end() - 1));
    }
    int64_t n_allowed = 0;  // at least, ids without keys included
    for (size_t i = 0; i < bits.size() && n_allowed < ids_.size(); ++i) {
      n_allowed += std::popcount(bits[i]);
    }
    n_wanted = std::min(n_wanted, n_allowed);
  }
  if (n_wanted == 0 || args.n_queries == 0) return absl::OkStatus();

  // Row r of a KV head is query r / group, query head r % group of the head's group.
  const int64_t group = args.n_heads / n_kv_heads;
  const int64_t n_rows = args.n_queries * group;
  const int64_t rows_per_call = n_rows <= kSingleRows ? 1 : kRowsPerCall;
  const int64_t calls_per_head = (n_rows + rows_per_call - 1) / rows_per_call;
  std::mutex mutex;
  absl::Status status;
  device.threads().ParallelFor(
      n_kv_heads * calls_per_head, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
        for (int64_t call = begin; call < end; ++call) {
          const int64_t kv_head = call / calls_per_head;
          const int64_t first_row = call % calls_per_head * rows_per_call;
          const int64_t n = std::min(rows_per_call, n_rows - first_row);
          const absl::Status call_status = CatchAll("index search", [&]() -> absl::Status {
            UseOneThread();
            const Head& head = heads_[static_cast<size_t>(kv_head)];
            std::vector<float> mapped(static_cast<size_t>(n * index_dim_));
            const auto place = [&](int64_t row) {  // of [n_queries, n_heads]
              return (first_row + row) / group * args.n_heads + kv_head * group +
                     (first_row + row) % group;
            };
            for (int64_t row = 0; row < n; ++row) {
              head.space.MapQuery(args.queries + place(row) * head_dim_,
                                  mapped.data() + row * index_dim_);
            }
            std::vector<int64_t> labels(static_cast<size_t>(n * k), -1);
            SearchRows(head,
                       {mapped.data(), n, k, Effort(args.n_probe),
                        args.filter.bits != nullptr ? &args.filter : nullptr, n_wanted},
                       labels.data());
            for (int64_t row = 0; row < n; ++row) {
              int64_t* out = candidates->data() + place(row) * k;
              for (int64_t j = 0; j < k; ++j) {
                const int64_t position = labels[static_cast<size_t>(row * k + j)];
                if (position >= 0 && position < ids_.size()) *out++ = ids_.At(position);
              }
            }
            return absl::OkStatus();
          });
          if (!call_status.ok()) {
            std::lock_guard lock(mutex);
            if (status.ok()) status = call_status;
          }
        }
      });
  return status;
}

absl::Status FaissLayerIndex::Save(const std::filesystem::path& path) const {
  IndexFileTrailer trailer;
  trailer.spec = spec_;
  trailer.library = StrCat("FAISS ", FaissVersion());
  trailer.head_dim = head_dim_;
  trailer.index_dim = index_dim_;
  trailer.is_augmented = is_augmented_;
  trailer.n_probe = effort().n_probe;
  trailer.n_candidates = effort().n_candidates;
  trailer.runs = ids_.runs();
  for (const Head& head : heads_) {
    trailer.heads.push_back({head.space.mean(), head.space.radius(), 0});
  }
  return WriteIndexFile(path, std::move(trailer), [&](size_t head, BlobSink sink) -> absl::Status {
    if (heads_[head].index == nullptr) return absl::OkStatus();
    SinkWriter writer(sink);
    const absl::Status status = CatchAll(path.string(), [&]() -> absl::Status {
      faiss::write_index(heads_[head].index.get(), &writer);
      return absl::OkStatus();
    });
    return writer.status().ok() ? status : writer.status();
  });
}

// Trains and fills `*index` with one head's keys.
absl::Status Fill(const HeadKeys& runs, int64_t head_dim, const KeySpace& space,
                  const KeyStatistics& statistics, int64_t n_keys, faiss::Index* index,
                  absl::FunctionRef<absl::Status(int64_t n_added)> report) {
  const size_t dim = static_cast<size_t>(space.index_dim());
  SetTraining(Core(index));
  if (!index->is_trained) {
    const int64_t n_sample = TrainingSize(Core(index), n_keys);
    std::vector<int64_t> sample = statistics.extremes;
    for (int64_t i = 0; i < n_sample; ++i) {
      sample.push_back(static_cast<int64_t>(static_cast<double>(i) / static_cast<double>(n_sample) *
                                            static_cast<double>(n_keys)));
    }
    std::sort(sample.begin(), sample.end());
    sample.erase(std::unique(sample.begin(), sample.end()), sample.end());
    std::vector<float> mapped(sample.size() * dim);
    KeyCursor cursor(runs, head_dim);
    for (size_t i = 0; i < sample.size(); ++i) {
      space.MapKey(cursor.At(sample[i]), mapped.data() + i * dim);
    }
    RETURN_IF_ERROR(report(0));
    index->train(static_cast<int64_t>(sample.size()), mapped.data());
  }
  std::vector<float> mapped;
  KeyCursor cursor(runs, head_dim);
  for (int64_t begin = 0; begin < n_keys; begin += kAddBatch) {
    const int64_t n = std::min(kAddBatch, n_keys - begin);
    mapped.resize(static_cast<size_t>(n) * dim);
    for (int64_t i = 0; i < n; ++i) {
      space.MapKey(cursor.At(begin + i), mapped.data() + static_cast<size_t>(i) * dim);
    }
    index->add(n, mapped.data());
    RETURN_IF_ERROR(report(n));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerIndex>> BuildFaissIndex(compute::Device& device,
                                                            const std::string& spec,
                                                            const std::vector<HeadKeys>& keys,
                                                            int64_t head_dim,
                                                            const Progress& progress) {
  ASSIGN_OR_RETURN(KeyIds ids, SharedIds(keys));
  ASSIGN_OR_RETURN(const EmptyIndex shape, MakeEmpty(spec, head_dim));

  const int64_t n_keys = ids.size();
  const int n_heads = static_cast<int>(keys.size());
  // Heads side by side, each on one thread: FAISS's own loops are many and short, and its threads
  // wait for each other spinning, which is far slower than one thread where other work runs.
  std::vector<Head> heads(keys.size());
  std::mutex mutex;
  absl::Status status;
  int64_t n_done = 0;
  std::atomic<bool> failed{false};
  device.threads().ParallelFor(n_heads, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t h = begin; h < end; ++h) {
      const absl::Status head_status = CatchAll("index build", [&]() -> absl::Status {
        Head& head = heads[static_cast<size_t>(h)];
        const HeadKeys& runs = keys[static_cast<size_t>(h)];
        ASSIGN_OR_RETURN(KeyStatistics statistics, Analyse(runs, head_dim));
        head.space =
            KeySpace(statistics.mean, statistics.radius, shape.index_dim, shape.is_augmented);
        if (n_keys == 0) return absl::OkStatus();
        ASSIGN_OR_RETURN(EmptyIndex empty, MakeEmpty(spec, head_dim));
        RETURN_IF_ERROR(Fill(runs, head_dim, head.space, statistics, n_keys, empty.index.get(),
                             [&](int64_t n_added) {
                               if (failed.load()) return absl::CancelledError("");
                               std::lock_guard lock(mutex);
                               n_done += n_added;
                               return progress.Report({"index", n_done, n_keys * n_heads, "keys"});
                             }));
        head.index = std::move(empty.index);
        return absl::OkStatus();
      });
      if (!head_status.ok() && !failed.exchange(true)) {
        std::lock_guard lock(mutex);
        status = Annotate(head_status, StrCat("index \"", spec, "\" over ", n_keys, " keys"));
      }
    }
  });
  RETURN_IF_ERROR(status);
  return std::unique_ptr<LayerIndex>(new FaissLayerIndex(
      spec, head_dim, shape.index_dim, shape.is_augmented, std::move(ids), std::move(heads)));
}

absl::StatusOr<std::unique_ptr<LayerIndex>> LoadFaissIndex(const std::filesystem::path& path,
                                                           IndexFile file) {
  const IndexFileTrailer& trailer = file.trailer;
  KeyIds ids(trailer.runs);
  std::vector<Head> heads;
  for (size_t h = 0; h < file.blobs.size(); ++h) {
    Head head;
    head.space = KeySpace(trailer.heads[h].mean, trailer.heads[h].radius, trailer.index_dim,
                          trailer.is_augmented);
    BytesReader reader(file.blobs[h]);
    if (ids.size() > 0) {
      const absl::Status status = CatchAll(path.string(), [&]() -> absl::Status {
        head.index.reset(faiss::read_index(&reader));
        return absl::OkStatus();
      });
      if (absl::IsResourceExhausted(status)) return status;
      if (!status.ok()) {
        return absl::DataLossError(StrCat(status.message(), " (written by ", trailer.library,
                                          ", read by FAISS ", FaissVersion(), "): rebuild it"));
      }
      if (head.index->d != trailer.index_dim || head.index->ntotal != ids.size() ||
          KindOf(head.index.get()) == Kind::kUnknown ||
          (h > 0 && KindOf(head.index.get()) != KindOf(heads[0].index.get()))) {
        return absl::DataLossError(StrCat(path, ": head ", h, " holds ", head.index->ntotal,
                                          " keys of ", head.index->d, ", want ", ids.size(), " of ",
                                          trailer.index_dim, ": rebuild the index"));
      }
    }
    if (!reader.at_end()) {
      return absl::DataLossError(
          StrCat(path, ": bytes after the index of head ", h, ": rebuild the index"));
    }
    heads.push_back(std::move(head));
  }
  return std::unique_ptr<LayerIndex>(new FaissLayerIndex(trailer.spec, trailer.head_dim,
                                                         trailer.index_dim, trailer.is_augmented,
                                                         std::move(ids), std::move(heads)));
}

std::string FaissVersion() {
  return StrCat(FAISS_VERSION_MAJOR, ".", FAISS_VERSION_MINOR, ".", FAISS_VERSION_PATCH);
}

absl::Status ValidateFaissSpec(const std::string& spec, int64_t head_dim) {
  return MakeEmpty(spec, head_dim).status();
}

}  // namespace fovea::index
