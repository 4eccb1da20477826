// FAISS as a kind of LayerIndex: a structure for each KV head, built side by side, searched in
// pieces by all threads, saved and loaded. Written for 1.7.3 (Debian 12, Ubuntu 24.04) to 1.15.
#include <faiss/Index.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <utility>

#include "absl/functional/function_ref.h"
#include "index/faiss_call.h"
#include "index/faiss_io.h"
#include "index/faiss_search.h"
#include "index/faiss_structure.h"
#include "index/index_file.h"
#include "index/key_ids.h"
#include "index/key_space.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {
namespace {

// Keys that are widened to float at a time.
constexpr int64_t kAddBatch = 16'384;

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
  const std::string& spec() const override { return spec_; }
  int64_t n_kv_heads() const override { return static_cast<int64_t>(heads_.size()); }
  int64_t n_keys() const override { return ids_.size(); }
  std::pair<int, int> ProbeRange() const override {
    if (ids_.size() == 0) return {0, 0};
    return FaissProbeRange(heads_[0].index.get());
  }

 private:
  const std::string spec_;
  const int64_t head_dim_;
  const int64_t index_dim_;
  const bool is_augmented_;
  const KeyIds ids_;
  const std::vector<Head> heads_;
};

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
    absl::Status sink_status;
    const std::string action = StrCat(path, ": writing the index of head ", head);
    const absl::Status status = CallFaiss({action, kBuilding.advice}, [&]() -> absl::Status {
      WriteFaiss(heads_[head].index.get(), sink, &sink_status);
      return absl::OkStatus();
    });
    return sink_status.ok() ? status : sink_status;
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
  ASSIGN_OR_RETURN(const EmptyFaissIndex shape, MakeEmptyFaissIndex(spec, head_dim));

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
      const absl::Status head_status = CallFaiss(kBuilding, [&]() -> absl::Status {
        Head& head = heads[static_cast<size_t>(h)];
        const HeadKeys& runs = keys[static_cast<size_t>(h)];
        ASSIGN_OR_RETURN(KeyStatistics statistics, Analyse(runs, head_dim));
        head.space =
            KeySpace(statistics.mean, statistics.radius, shape.index_dim, shape.is_augmented);
        if (n_keys == 0) return absl::OkStatus();
        ASSIGN_OR_RETURN(EmptyFaissIndex empty, MakeEmptyFaissIndex(spec, head_dim));
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
