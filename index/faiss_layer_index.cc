// FAISS as a kind of LayerIndex: a structure for each KV head, built side by side, searched in
// pieces by all threads, saved and loaded. Written for 1.7.3 (Debian 12, Ubuntu 24.04) to 1.15.
#include <faiss/Index.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <utility>

#include "absl/functional/function_ref.h"
#include "index/device_index.h"
#include "index/faiss_call.h"
#include "index/faiss_gpu.h"
#include "index/faiss_io.h"
#include "index/faiss_merge.h"
#include "index/faiss_search.h"
#include "index/faiss_structure.h"
#include "index/index_file.h"
#include "index/key_ids.h"
#include "index/key_space.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {
namespace {

// Keys that are widened to float at a time. A GPU takes long to begin with a batch.
constexpr int64_t kAddBatch = 16'384;
constexpr int64_t kGpuAddBatch = 262'144;

// Query rows that one FAISS call gets. Fixed, so that the order of its sums, and with it the
// result, does not depend on the number of threads.
constexpr int64_t kRowsPerCall = 32;
constexpr int64_t kSingleRows = 16;  // up to this many, each row is shared out on its own

constexpr FaissAction kBuilding{"index build", "choose another specification (--index)"};
constexpr FaissAction kSearching{
    "index search", "search without it (--mode exact), or make it again (fovea rebuild)"};

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
        heads_(std::move(heads)) {}

  absl::Status Save(const std::filesystem::path& path) const override;
  absl::Status Search(compute::Device& device, const LayerSearchArgs& args,
                      std::vector<int64_t>* candidates) const override;
  bool is_same_in_batches() const override { return false; }
  const std::string& spec() const override { return spec_; }
  int64_t n_kv_heads() const override { return static_cast<int64_t>(heads_.size()); }
  int64_t n_keys() const override { return ids_.size(); }
  std::pair<int, int> ProbeRange() const override {
    if (ids_.size() == 0) return {0, 0};
    return FaissProbeRange(heads_[0].index.get());
  }
  size_t DeviceBytes(const compute::Device& device) const override;
  absl::StatusOr<std::unique_ptr<DeviceIndex>> CopyTo(compute::Device& device) const override;

 private:
  // Search, but the candidates are numbers of keys, in the order of ids_.
  absl::Status SearchNumbers(compute::Device& device, const LayerSearchArgs& args,
                             std::vector<int64_t>* numbers) const;
  friend class HostedIndex;

  const std::string spec_;
  const int64_t head_dim_;
  const int64_t index_dim_;
  const bool is_augmented_;
  const KeyIds ids_;
  const std::vector<Head> heads_;
};

// The index on a device that is a CPU, whose memory the host may reach while an op runs: what a
// GPU's answers are compared with.
class HostedIndex final : public DeviceIndex {
 public:
  explicit HostedIndex(const FaissLayerIndex& index) : index_(index) {}

  absl::Status Search(compute::Device& device, const DeviceSearchArgs& args) const override {
    const int64_t group = args.n_heads / index_.n_kv_heads();
    const int64_t k = args.n_candidates;
    std::vector<int64_t> numbers;
    const compute::DeviceScope scope(device);
    RETURN_IF_ERROR(index_.SearchNumbers(device,
                                         {.queries = args.queries,
                                          .n_queries = args.n_queries,
                                          .n_heads = args.n_heads,
                                          .n_candidates = args.n_candidates,
                                          .n_probe = args.n_probe,
                                          .filter = {}},
                                         &numbers));
    for (int64_t row = 0; row < args.n_queries * args.n_heads; ++row) {
      const int64_t head = row % args.n_heads;
      const int64_t list =
          (head / group * args.n_queries + row / args.n_heads) * group + head % group;
      std::copy_n(numbers.data() + row * k, k, args.keys + list * k);
    }
    return absl::OkStatus();
  }
  const KeyIds& ids() const override { return index_.ids_; }

 private:
  const FaissLayerIndex& index_;
};

size_t FaissLayerIndex::DeviceBytes(const compute::Device& device) const {
  const bool is_searched =
      device.kind() == compute::DeviceKind::kCuda ? HasFaissGpu() : !device.is_host_memory();
  if (!is_searched || ids_.size() == 0 || effort().n_probe > kMaxDeviceProbe) return 0;
  size_t size_bytes = 0;
  for (const Head& head : heads_) {
    const size_t head_bytes =
        GpuStructureBytes(head.index.get(), MergedDim(head.index.get(), n_kv_heads()));
    if (head_bytes == 0) return 0;
    size_bytes += head_bytes;
  }
  return size_bytes;
}

absl::StatusOr<std::unique_ptr<DeviceIndex>> FaissLayerIndex::CopyTo(
    compute::Device& device) const {
  if (DeviceBytes(device) == 0) return LayerIndex::CopyTo(device);
  if (device.kind() == compute::DeviceKind::kCpu) return std::make_unique<HostedIndex>(*this);
  std::vector<FaissHead> heads;
  for (const Head& head : heads_) {
    heads.push_back({head.index.get(), is_augmented_ ? head.space.radius() : 0.0f});
  }
  return CopyFaissToGpu(device, heads, ids_, head_dim_);
}

absl::Status FaissLayerIndex::Search(compute::Device& device, const LayerSearchArgs& args,
                                     std::vector<int64_t>* candidates) const {
  RETURN_IF_ERROR(SearchNumbers(device, args, candidates));
  for (int64_t& candidate : *candidates) {
    if (candidate >= 0) candidate = ids_.At(candidate);
  }
  return absl::OkStatus();
}

absl::Status FaissLayerIndex::SearchNumbers(compute::Device& device, const LayerSearchArgs& args,
                                            std::vector<int64_t>* numbers) const {
  const int64_t n_kv_heads = this->n_kv_heads();
  if (args.n_heads < 1 || args.n_heads % n_kv_heads != 0 || args.n_candidates < 1 ||
      args.n_queries < 0) {
    return absl::InvalidArgumentError(StrCat("index search: ", args.n_queries, " queries of ",
                                             args.n_heads, " heads, ", args.n_candidates,
                                             " candidates; want a multiple of ", n_kv_heads,
                                             " heads and at least one candidate"));
  }
  const int64_t k = args.n_candidates;
  numbers->assign(static_cast<size_t>(args.n_queries * args.n_heads * k), -1);
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
          const absl::Status call_status = CallFaiss(kSearching, [&]() -> absl::Status {
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
            SearchFaiss(*head.index, ids_,
                        {mapped.data(), n, k, FaissEffort(head.index.get(), args.n_probe),
                         args.filter.bits != nullptr ? &args.filter : nullptr, n_wanted},
                        labels.data());
            for (int64_t row = 0; row < n; ++row) {
              int64_t* out = numbers->data() + place(row) * k;
              for (int64_t j = 0; j < k; ++j) {
                const int64_t position = labels[static_cast<size_t>(row * k + j)];
                if (position >= 0 && position < ids_.size()) *out++ = position;
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
    absl::Status sink_status;
    const std::string action = StrCat(path, ": writing the index of head ", head);
    const absl::Status status = CallFaiss({action, kBuilding.advice}, [&]() -> absl::Status {
      WriteFaiss(heads_[head].index.get(), sink, &sink_status);
      return absl::OkStatus();
    });
    return sink_status.ok() ? status : sink_status;
  });
}

// One head's keys, and how they are mapped.
struct HeadSource {
  const HeadKeys& runs;
  const int64_t head_dim;
  const KeySpace& space;
  const KeyStatistics& statistics;
  const int64_t n_keys;
  const int64_t n_sample;         // to train with
  const int64_t add_batch;        // keys that are added at a time
  ThreadPool* threads = nullptr;  // map them; null: the calling thread does

  // Keys first … first + n − 1 → out, [n, index_dim].
  void Map(int64_t first, int64_t n, float* out) const {
    const auto map = [&](int64_t begin, int64_t end, int /*thread*/) {
      KeyCursor cursor(runs, head_dim);
      for (int64_t i = begin; i < end; ++i) {
        space.MapKey(cursor.At(first + i), out + i * space.index_dim());
      }
    };
    if (threads == nullptr) {
      map(0, n, 0);
    } else {
      threads->ParallelFor(n, 4096, map);
    }
  }
};

// Trains and fills `*index` with one head's keys.
absl::Status Fill(const HeadSource& from, faiss::Index* index,
                  absl::FunctionRef<absl::Status(int64_t n_added)> report) {
  const size_t dim = static_cast<size_t>(from.space.index_dim());
  const int64_t n_keys = from.n_keys;
  if (!index->is_trained) {
    const int64_t n_sample = from.n_sample;
    std::vector<int64_t> sample = from.statistics.extremes;
    for (int64_t i = 0; i < n_sample; ++i) {
      sample.push_back(static_cast<int64_t>(static_cast<double>(i) / static_cast<double>(n_sample) *
                                            static_cast<double>(n_keys)));
    }
    std::sort(sample.begin(), sample.end());
    sample.erase(std::unique(sample.begin(), sample.end()), sample.end());
    std::vector<float> mapped(sample.size() * dim);
    KeyCursor cursor(from.runs, from.head_dim);
    for (size_t i = 0; i < sample.size(); ++i) {
      from.space.MapKey(cursor.At(sample[i]), mapped.data() + i * dim);
    }
    RETURN_IF_ERROR(report(0));
    index->train(static_cast<int64_t>(sample.size()), mapped.data());
  }
  std::vector<float> mapped;
  for (int64_t begin = 0; begin < n_keys; begin += from.add_batch) {
    const int64_t n = std::min(from.add_batch, n_keys - begin);
    mapped.resize(static_cast<size_t>(n) * dim);
    from.Map(begin, n, mapped.data());
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
  ASSIGN_OR_RETURN(const EmptyFaissIndex shape, MakeEmptyFaissIndex(spec, head_dim));

  const int64_t n_keys = ids.size();
  const int n_heads = static_cast<int>(keys.size());
  bool on_gpu = device.kind() == compute::DeviceKind::kCuda && HasFaissGpu() &&
                GpuStructureBytes(shape.index.get()) > 0;
  std::vector<Head> heads(keys.size());
  std::mutex mutex;
  absl::Status status;
  int64_t n_done = 0;
  std::atomic<bool> failed{false};
  std::vector<absl::StatusOr<KeyStatistics>> analyses(keys.size());
  device.threads().ParallelFor(n_heads, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (auto h = static_cast<size_t>(begin); h < static_cast<size_t>(end); ++h) {
      analyses[h] = Analyse(keys[h], head_dim);
    }
  });
  const auto build = [&](size_t h) -> absl::Status {
    Head& head = heads[h];
    RETURN_IF_ERROR(analyses[h].status());
    const KeyStatistics& statistics = *analyses[h];
    head.space = KeySpace(statistics.mean, statistics.radius, shape.index_dim, shape.is_augmented);
    if (n_keys == 0) return absl::OkStatus();
    ASSIGN_OR_RETURN(EmptyFaissIndex empty, MakeEmptyFaissIndex(spec, head_dim));
    SetTraining(Core(empty.index.get()));
    const HeadSource source{.runs = keys[h],
                            .head_dim = head_dim,
                            .space = head.space,
                            .statistics = statistics,
                            .n_keys = n_keys,
                            .n_sample = TrainingSize(Core(empty.index.get()), n_keys),
                            .add_batch = on_gpu ? kGpuAddBatch : kAddBatch,
                            .threads = on_gpu ? &device.threads() : nullptr};
    if (on_gpu) {
      UseThreads(device.threads().n_threads());
      ASSIGN_OR_RETURN(empty.index, MoveEmptyToGpu(device, *empty.index));
    }
    RETURN_IF_ERROR(Fill(source, empty.index.get(), [&](int64_t n_added) {
      if (failed.load()) return absl::CancelledError("");
      std::lock_guard lock(mutex);
      n_done += n_added;
      return progress.Report({"index", n_done, n_keys * n_heads, "keys"});
    }));
    head.index = on_gpu ? CopyFaissFromGpu(*empty.index) : std::move(empty.index);
    return absl::OkStatus();
  };
  const auto build_heads = [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t h = begin; h < end; ++h) {
      const absl::Status head_status =
          CallFaiss(kBuilding, [&] { return build(static_cast<size_t>(h)); });
      if (!head_status.ok() && !failed.exchange(true)) {
        std::lock_guard lock(mutex);
        status = Annotate(head_status, StrCat("index \"", spec, "\" over ", n_keys, " keys"));
      }
    }
  };
  if (on_gpu) {
    build_heads(0, n_heads, 0);
    UseOneThread();
    if (absl::IsResourceExhausted(status)) {
      // The GPU has no room: the host builds it.
      on_gpu = false;
      failed = false;
      status = absl::OkStatus();
      n_done = 0;
    }
  }
  if (!on_gpu) {
    // Heads side by side, each on one thread: FAISS's own loops are many and short, and its threads
    // wait for each other spinning, which is far slower than one thread where other work runs.
    device.threads().ParallelFor(n_heads, 1, build_heads);
  }
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
    std::string_view bytes = file.blobs[h];
    if (ids.size() > 0) {
      const std::string action =
          StrCat(path, ": reading the index of head ", h, ", which ", trailer.library, " wrote");
      const absl::Status status = CallFaiss({action, "rebuild the index"}, [&]() -> absl::Status {
        head.index = ReadFaiss(&bytes);
        return absl::OkStatus();
      });
      if (absl::IsResourceExhausted(status)) return status;
      if (!status.ok()) return absl::DataLossError(status.message());
      if (head.index->d != trailer.index_dim || head.index->ntotal != ids.size() ||
          KindOf(head.index.get()) == FaissKind::kUnknown ||
          (h > 0 && KindOf(head.index.get()) != KindOf(heads[0].index.get()))) {
        return absl::DataLossError(StrCat(path, ": head ", h, " holds ", head.index->ntotal,
                                          " keys of ", head.index->d, ", want ", ids.size(), " of ",
                                          trailer.index_dim, ": rebuild the index"));
      }
    }
    if (!bytes.empty()) {
      return absl::DataLossError(
          StrCat(path, ": bytes after the index of head ", h, ": rebuild the index"));
    }
    heads.push_back(std::move(head));
  }
  return std::unique_ptr<LayerIndex>(new FaissLayerIndex(trailer.spec, trailer.head_dim,
                                                         trailer.index_dim, trailer.is_augmented,
                                                         std::move(ids), std::move(heads)));
}

absl::Status ValidateFaissSpec(const std::string& spec, int64_t head_dim) {
  return MakeEmptyFaissIndex(spec, head_dim).status();
}

}  // namespace fovea::index
