#include "memory/segments/segment_builder.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/file.h"
#include "index/calibration.h"
#include "index/layer_index.h"
#include "memory/segment_files.h"
#include "memory/segments/stored_windows.h"

namespace fovea::memory {
namespace {

using storage::Slot;

constexpr std::string_view kExact = "exact";
constexpr std::string_view kAuto = "auto";

// Fewer confident queries than this say nothing about an index (the rule of index/calibration.h).
constexpr int64_t kEnoughConfident = 32;
// Effort where no layer has enough confident queries: an eighth of the largest, and candidates
// enough for coarse codes. Measured on real keys, 11% of the lists of an IVF found 98% of needles.
constexpr int kUnjudgedProbeShare = 8;
constexpr int kUnjudgedCandidates = 128;

// What "auto" takes where no layer has them: a scan of all keys at 4 bits has found, on real keys,
// every needle that was looked for (with 64 candidates 0.998 and more).
constexpr std::string_view kUnjudgedSpec = "Scan4";

// Windows to take calibration queries from, spread evenly over the segment. Of book text one
// (query, head) pair in a hundred is confident, in the layer that has the most.
constexpr int64_t kSampledWindows = 128;

absl::StatusOr<uint64_t> TakeSegmentId(storage::DocumentStore* store) {
  // Reading and writing the counter must not interleave with another builder of the process; there
  // is one writing process, and ids are taken rarely.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  ASSIGN_OR_RETURN(const storage::Counters counters, store->ReadCounters());
  storage::Mutation mutation;
  mutation.PutNextSegmentId(counters.next_segment + 1);
  RETURN_IF_ERROR(store->Commit(std::move(mutation)));
  return counters.next_segment;
}

// The keys of one memory layer of a run of slots, as an index wants them.
struct LayerKeys {
  std::vector<storage::Block> blocks;      // own the keys; values are empty
  std::vector<index::HeadKeys> head_keys;  // [n_kv_heads], point into blocks
};

// The keys of a window in one memory layer; none where the window was deleted meanwhile. DataLoss
// for a block that is not as the settings and its link say, or that is missing though its window is
// there.
absl::StatusOr<std::optional<storage::Block>> ReadKeys(const storage::DocumentStore& store,
                                                       const storage::StoreSettings& settings,
                                                       const StoredWindow& window,
                                                       int memory_layer) {
  absl::StatusOr<storage::Block> read =
      store.GetBlock(window.slot_begin, memory_layer, storage::DocumentStore::BlockPart::kKeys);
  if (absl::IsNotFound(read.status()) &&
      absl::IsNotFound(store.GetWindow(window.slot_begin).status())) {
    return std::nullopt;
  }
  if (!read.ok()) {
    const absl::Status status = absl::IsNotFound(read.status())
                                    ? absl::DataLossError(read.status().message())
                                    : read.status();
    return Annotate(status,
                    StrCat("keys of the window at slot ", window.slot_begin, ", memory layer ",
                           memory_layer, " (`fovea verify --repair` makes damaged blocks again)"));
  }
  if (read->n_tokens != window.n_tokens || read->n_kv_heads != settings.n_kv_heads ||
      read->head_dim != settings.head_dim) {
    return absl::DataLossError(StrCat("block of the window at slot ", window.slot_begin,
                                      ", memory layer ", memory_layer, ": shape [",
                                      read->n_kv_heads, ",", read->n_tokens, ",", read->head_dim,
                                      "], want [", settings.n_kv_heads, ",", window.n_tokens, ",",
                                      settings.head_dim, "]: run `fovea verify --repair`"));
  }
  return *std::move(read);
}

// Windows that are read at once, between looks at whether to go on.
constexpr size_t kWindowsAtOnce = 64;

absl::StatusOr<LayerKeys> ReadLayerKeys(compute::Device& device,
                                        const storage::DocumentStore& store,
                                        const storage::StoreSettings& settings,
                                        const std::vector<StoredWindow>& windows, Slot slot_begin,
                                        int memory_layer, const Progress& progress) {
  LayerKeys keys;
  keys.blocks.reserve(windows.size());
  keys.head_keys.resize(static_cast<size_t>(settings.n_kv_heads));
  for (size_t first = 0; first < windows.size(); first += kWindowsAtOnce) {
    std::vector<absl::StatusOr<std::optional<storage::Block>>> read(
        std::min(kWindowsAtOnce, windows.size() - first));
    for (size_t i = 0; i < read.size(); ++i) {
      RETURN_IF_ERROR(progress.Report({.stage = "read keys",
                                       .done = static_cast<int64_t>(first + i),
                                       .total = static_cast<int64_t>(windows.size()),
                                       .unit = "blocks"}));
    }
    device.threads().ParallelFor(
        static_cast<int64_t>(read.size()), 2, [&](int64_t begin, int64_t end, int) {
          for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
            read[i] = ReadKeys(store, settings, windows[first + i], memory_layer);
          }
        });
    for (size_t i = 0; i < read.size(); ++i) {
      RETURN_IF_ERROR(read[i].status());
      if (!read[i]->has_value()) continue;
      keys.blocks.push_back(**std::move(read[i]));
      const storage::Block& block = keys.blocks.back();
      for (int64_t head = 0; head < block.n_kv_heads; ++head) {
        keys.head_keys[static_cast<size_t>(head)].push_back(
            {.keys = block.keys.data() + head * block.n_tokens * block.head_dim,
             .n_keys = block.n_tokens,
             .first_id = static_cast<int64_t>(windows[first + i].slot_begin - slot_begin)});
      }
    }
  }
  return keys;
}

// Real queries of all memory layers, from windows spread over the segment. Samples that are missing
// or damaged are passed over: fewer queries make a less certain calibration, not a wrong index.
absl::StatusOr<std::vector<index::CalibrationQueries>> ReadCalibrationQueries(
    const storage::DocumentStore& store, const storage::StoreSettings& settings,
    const std::vector<StoredWindow>& windows) {
  std::vector<index::CalibrationQueries> layers(static_cast<size_t>(settings.n_mem_layers));
  for (index::CalibrationQueries& layer : layers) {
    layer.head_dim = settings.head_dim;
    layer.scale = 1.0f / std::sqrt(static_cast<float>(settings.head_dim));
  }
  const auto n_windows = static_cast<int64_t>(windows.size());
  const int64_t n_sampled = std::min(n_windows, kSampledWindows);
  for (int64_t i = 0; i < n_sampled; ++i) {
    const StoredWindow& window = windows[static_cast<size_t>(i * n_windows / n_sampled)];
    absl::StatusOr<storage::QuerySample> sample = store.GetQuerySample(window.slot_begin);
    if (absl::IsNotFound(sample.status()) || absl::IsDataLoss(sample.status())) continue;
    RETURN_IF_ERROR(sample.status());
    if (sample->n_queries < 1 || sample->queries.size() != layers.size()) continue;
    const int64_t quota = (kCalibrationQueries + n_sampled - 1) / n_sampled;
    const int64_t n_taken = std::min(quota, sample->n_queries);
    for (size_t m = 0; m < layers.size(); ++m) {
      index::CalibrationQueries& layer = layers[m];
      const std::vector<BFloat16>& queries = sample->queries[m];
      const int64_t n_values = static_cast<int64_t>(queries.size()) / sample->n_queries;
      const int64_t n_heads = n_values / settings.head_dim;
      if (n_heads < 1 || n_heads % settings.n_kv_heads != 0 ||
          (layer.n_heads != 0 && n_heads != layer.n_heads) ||
          sample->n_queries * n_heads * settings.head_dim != static_cast<int64_t>(queries.size())) {
        continue;
      }
      layer.n_heads = n_heads;
      for (int64_t taken = 0; taken < n_taken; ++taken) {
        const int64_t query = taken * sample->n_queries / n_taken;
        const size_t end = layer.queries.size();
        layer.queries.resize(end + static_cast<size_t>(n_values));
        BFloat16ToFloat(queries.data() + query * n_values, layer.queries.data() + end,
                        static_cast<size_t>(n_values));
        ++layer.n_queries;
      }
    }
  }
  // Without a single sample the shape must still be one that can be searched with.
  for (index::CalibrationQueries& layer : layers) {
    if (layer.n_heads == 0) layer.n_heads = settings.n_kv_heads;
  }
  return layers;
}

// Builds the layers of one segment, saving each as soon as it is built.
class Builder {
 public:
  Builder(compute::Device& device, storage::DocumentStore* store,
          const std::filesystem::path& index_folder, const storage::StoreSettings& settings,
          const SegmentRequest& request, const Progress& progress)
      : device_(device),
        store_(store),
        index_folder_(index_folder),
        settings_(settings),
        request_(request),
        progress_(progress) {}

  absl::StatusOr<storage::SegmentRecord> Build() {
    absl::StatusOr<storage::SegmentRecord> record = BuildFiles();
    if (!record.ok() || record->files.empty()) RemoveFiles();
    return record;
  }

 private:
  absl::StatusOr<storage::SegmentRecord> BuildFiles() {
    ASSIGN_OR_RETURN(windows_, FindStoredWindows(*store_, request_.slot_begin, request_.slot_end));
    storage::SegmentRecord record;
    record.generation = request_.generation;
    record.slot_begin = request_.slot_begin;
    record.slot_end = request_.slot_end;
    record.n_tokens = CountTokens(windows_);
    record.spec = std::string(kExact);
    record.requested_spec = request_.spec;
    record.fingerprint = settings_.fingerprint;
    ASSIGN_OR_RETURN(record.id, TakeSegmentId(store_));
    id_ = record.id;
    const bool small =
        request_.spec == kAuto && record.n_tokens < static_cast<uint64_t>(index::kAutoExactTokens);
    const bool no_keys = windows_.empty() || settings_.n_mem_layers == 0;
    if (request_.spec == kExact || small || no_keys) return record;

    RETURN_IF_ERROR(CreateDirectories(index_folder_));
    ASSIGN_OR_RETURN(queries_, ReadCalibrationQueries(*store_, settings_, windows_));
    const int n_layers = settings_.n_mem_layers;
    layers_.resize(static_cast<size_t>(n_layers));
    // With "auto" each layer has the specification that suits its queries. A layer with too few
    // confident ones to judge by takes that of another; the last memory layers have the most
    // (index-study: 0.1%, 6% and 17% of the queries of layers 9, 15 and 21).
    std::string judged_spec;
    for (int layer = n_layers - 1; layer >= 0; --layer) {
      ASSIGN_OR_RETURN(const Outcome outcome, BuildLayer(layer, request_.spec, judged_spec));
      if (outcome == Outcome::kExact) return record;
      if (outcome == Outcome::kBuilt && judged_spec.empty()) {
        judged_spec = layers_[static_cast<size_t>(layer)]->spec;
      }
    }
    if (judged_spec.empty()) judged_spec = kUnjudgedSpec;
    for (int layer = n_layers - 1; layer >= 0; --layer) {
      if (layers_[static_cast<size_t>(layer)]) continue;
      ASSIGN_OR_RETURN(const Outcome outcome, BuildLayer(layer, judged_spec, ""));
      if (outcome == Outcome::kExact) return record;
    }

    std::set<std::string> specs;
    for (const std::optional<BuiltLayer>& layer : layers_) specs.insert(layer->spec);
    record.spec = absl::StrJoin(specs, " + ");
    record.faiss_version = index::FaissVersion();
    bool judged = false;
    int largest_probe = 0;
    for (std::optional<BuiltLayer>& layer : layers_) {
      record.n_probe = std::max(record.n_probe, layer->effort.n_probe);
      record.n_candidates = std::max(record.n_candidates, layer->effort.n_candidates);
      record.needle_recall.push_back(layer->needle_recall.recall);
      record.files.push_back(std::move(layer->file));
      judged = judged || layer->needle_recall.n_confident >= kEnoughConfident;
      largest_probe = std::max(largest_probe, layer->largest_probe);
    }
    if (!judged) {
      record.n_probe =
          std::max(record.n_probe, (largest_probe + kUnjudgedProbeShare - 1) / kUnjudgedProbeShare);
      record.n_candidates = std::max(record.n_candidates, kUnjudgedCandidates);
    }
    return record;
  }

  struct BuiltLayer {
    std::string spec;
    index::Effort effort;
    index::NeedleRecall needle_recall;
    int largest_probe = 0;
    storage::SegmentFile file;
  };
  enum class Outcome { kBuilt, kExact, kUnjudged };

  // kUnjudged only for "auto", where unjudged_spec is empty: too few confident queries in this
  // layer to choose by.
  absl::StatusOr<Outcome> BuildLayer(int layer, const std::string& spec,
                                     const std::string& unjudged_spec) {
    ASSIGN_OR_RETURN(const LayerKeys keys, ReadLayerKeys(device_, *store_, settings_, windows_,
                                                         request_.slot_begin, layer, progress_));
    if (keys.blocks.empty()) return Outcome::kExact;  // everything was deleted meanwhile
    absl::StatusOr<index::CalibratedIndex> built = index::BuildCalibrated(
        device_, spec, keys.head_keys, settings_.head_dim, queries_[static_cast<size_t>(layer)],
        kTargetNeedleRecall, progress_, unjudged_spec);
    // The specification was validated when it was set: what remains is that it cannot hold these
    // keys, as an IVF with more lists than keys.
    if (absl::IsInvalidArgument(built.status())) return Outcome::kExact;
    RETURN_IF_ERROR(built.status());
    if (built->index == nullptr) {
      return spec == kAuto && built->needle_recall.n_confident < kEnoughConfident
                 ? Outcome::kUnjudged
                 : Outcome::kExact;
    }
    // A layer that is not judged by its own queries is searched with the largest effort of those
    // that are: the segment's.
    if (built->needle_recall.n_confident >= kEnoughConfident) {
      built->index->set_effort(built->effort);
    }
    const std::filesystem::path path = index_folder_ / SegmentFileName(id_, layer);
    RETURN_IF_ERROR(built->index->Save(path));
    ASSIGN_OR_RETURN(storage::SegmentFile file, DescribeSegmentFile(path));
    layers_[static_cast<size_t>(layer)] = {.spec = built->spec,
                                           .effort = built->effort,
                                           .needle_recall = built->needle_recall,
                                           .largest_probe = built->index->ProbeRange().second,
                                           .file = std::move(file)};
    return Outcome::kBuilt;
  }

  void RemoveFiles() const {
    storage::SegmentRecord written;
    for (int layer = 0; layer < settings_.n_mem_layers; ++layer) {
      written.files.push_back({.name = SegmentFileName(id_, layer)});
    }
    if (id_ != 0) RemoveSegmentFiles({&written, 1}, index_folder_);
  }

  compute::Device& device_;
  storage::DocumentStore* store_;
  const std::filesystem::path& index_folder_;
  const storage::StoreSettings& settings_;
  const SegmentRequest& request_;
  const Progress& progress_;
  uint64_t id_ = 0;
  std::vector<StoredWindow> windows_;
  std::vector<index::CalibrationQueries> queries_;  // [n_mem_layers]
  std::vector<std::optional<BuiltLayer>> layers_;   // [n_mem_layers]
};

}  // namespace

absl::StatusOr<storage::SegmentRecord> BuildSegment(compute::Device& device,
                                                    storage::DocumentStore* store,
                                                    const std::filesystem::path& index_folder,
                                                    const storage::StoreSettings& settings,
                                                    const SegmentRequest& request,
                                                    const Progress& progress) {
  return Builder(device, store, index_folder, settings, request, progress).Build();
}

absl::Status CommitSegment(storage::DocumentStore* store, const std::filesystem::path& index_folder,
                           const storage::SegmentRecord& record,
                           std::span<const storage::SegmentRecord> replaced) {
  storage::Mutation mutation;
  mutation.PutSegment(record);
  for (const storage::SegmentRecord& old : replaced) mutation.DeleteSegment(old.id);
  const absl::Status status = store->Commit(std::move(mutation));
  // After an I/O error a restart may find the commit or not: the files of both sides stay, and the
  // next writer removes those that turned out to be orphans.
  if (status.ok()) RemoveSegmentFiles(replaced, index_folder);
  return status;
}

absl::StatusOr<storage::SegmentRecord> RebuildSegment(compute::Device& device,
                                                      storage::DocumentStore* store,
                                                      const std::filesystem::path& index_folder,
                                                      const storage::SegmentRecord& record,
                                                      const Progress& progress) {
  ASSIGN_OR_RETURN(const std::optional<storage::StoreSettings> settings, store->Settings());
  if (!settings.has_value()) {
    return absl::DataLossError(StrCat(store->folder(), ": segments without settings"));
  }
  ASSIGN_OR_RETURN(storage::SegmentRecord rebuilt,
                   BuildSegment(device, store, index_folder, *settings,
                                {.generation = record.generation,
                                 .slot_begin = record.slot_begin,
                                 .slot_end = record.slot_end,
                                 .spec = record.requested_spec},
                                progress));
  RETURN_IF_ERROR(CommitSegment(store, index_folder, rebuilt, {&record, 1}));
  return rebuilt;
}

}  // namespace fovea::memory
