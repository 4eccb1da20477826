#include "index/faiss_structure.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFastScan.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPQFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/index_factory.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <typeinfo>

#include "index/faiss_call.h"
#include "index/layer_index.h"

// Fast-scan inverted files take search parameters (their n_probe, our filter) since 1.8.
#define FOVEA_FAISS_AT_LEAST(major, minor) \
  (FAISS_VERSION_MAJOR > (major) ||        \
   (FAISS_VERSION_MAJOR == (major) && FAISS_VERSION_MINOR >= (minor)))

namespace fovea::index {
namespace {

// What a specification may ask for, so that a typing error does not eat all memory.
constexpr size_t kMaxSpecSize = 128;
constexpr int64_t kMaxSpecNumber = 1 << 20;
constexpr int64_t kMaxNeighbours = 512;  // of a node of HNSW: 4 KiB a key
constexpr int64_t kMaxCodeBits = 16;     // of a part of a product quantizer

constexpr std::string_view kWanted =
    "want auto, exact, Scan2, Scan4, Scan8, or FAISS's Flat, SQ…, PQ…, IVF… or HNSW…, with or "
    "without OPQ or PCA before it";

constexpr int kEfConstruction = 40;

// FAISS asks for 39 a centroid, up to 256; in between, training time is what differs.
constexpr int64_t kTrainPerCentroid = 64;
constexpr int64_t kMinTrainKeys = 65'536;

bool WorksInL2(FaissKind kind) { return kind == FaissKind::kIvf || kind == FaissKind::kHnsw; }

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

// index_factory for the smallest dimension from `from` that the structure can divide.
absl::StatusOr<EmptyFaissIndex> Factory(const std::string& spec, int64_t from,
                                        faiss::MetricType metric) {
  absl::Status first_error;
  // Only product quantisers divide it; those of up to 128 parts find a multiple within this.
  const int64_t end = spec.find("PQ") == std::string::npos ? from : from + 128;
  for (int64_t dim = from; dim <= end; dim = dim / 4 * 4 + 4) {
    EmptyFaissIndex empty;
    const absl::Status status =
        CallFaiss({StrCat("index specification \"", spec, "\""), kWanted}, [&]() -> absl::Status {
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

}  // namespace

faiss::Index* Core(faiss::Index* index) {
  while (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) {
    index = transform->index;
  }
  return index;
}

FaissKind KindOf(const faiss::Index* index) {
  const faiss::Index* core = Core(index);
  if (dynamic_cast<const faiss::IndexIVF*>(core) != nullptr) {
    if (dynamic_cast<const faiss::IndexIVFFastScan*>(core) != nullptr &&
        !FOVEA_FAISS_AT_LEAST(1, 8)) {
      return FaissKind::kUnknown;
    }
    return FaissKind::kIvf;
  }
  if (dynamic_cast<const faiss::IndexHNSW*>(core) != nullptr) return FaissKind::kHnsw;
  if (dynamic_cast<const faiss::IndexFlat*>(core) != nullptr ||
      dynamic_cast<const faiss::IndexScalarQuantizer*>(core) != nullptr) {
    return FaissKind::kScan;
  }
  if (dynamic_cast<const faiss::IndexPQ*>(core) != nullptr ||
      dynamic_cast<const faiss::IndexPQFastScan*>(core) != nullptr) {
    return FaissKind::kBlindScan;
  }
  return FaissKind::kUnknown;
}

absl::StatusOr<EmptyFaissIndex> MakeEmptyFaissIndex(const std::string& spec, int64_t head_dim) {
  RETURN_IF_ERROR(CheckSpecText(spec));
  UseOneThread();
  absl::StatusOr<EmptyFaissIndex> empty = Factory(spec, head_dim, faiss::METRIC_INNER_PRODUCT);
  if (!empty.ok() || WorksInL2(KindOf(empty->index.get()))) {
    // A multiple of 4 suits FAISS's loops.
    empty = Factory(spec, (head_dim + 1 + 3) / 4 * 4, faiss::METRIC_L2);
    if (empty.ok() && !WorksInL2(KindOf(empty->index.get()))) {
      empty = absl::InvalidArgumentError(
          StrCat("index specification \"", spec, "\": FAISS ", FaissVersion(),
                 " does not find inner products with it: ", kWanted));
    }
  }
  RETURN_IF_ERROR(empty.status());
  if (KindOf(empty->index.get()) == FaissKind::kUnknown) {
    return absl::InvalidArgumentError(StrCat("index specification \"", spec,
                                             "\": not a structure that fovea searches with FAISS ",
                                             FaissVersion(), ": ", kWanted));
  }
  return empty;
}

namespace {

constexpr size_t kGpuGranule = 512;  // what the GPU's memory is given out by
constexpr size_t kGpuListKeys = 32;  // that a list is extended by

bool GpuHasQuantizer(faiss::ScalarQuantizer::QuantizerType type) {
  using Quantizer = faiss::ScalarQuantizer;
  return type == Quantizer::QT_fp16 || type == Quantizer::QT_8bit ||
         type == Quantizer::QT_8bit_uniform || type == Quantizer::QT_8bit_direct ||
         type == Quantizer::QT_6bit || type == Quantizer::QT_4bit ||
         type == Quantizer::QT_4bit_uniform;
}

bool GpuHasProductQuantizer(const faiss::IndexIVFPQ& index) {
  constexpr size_t kParts[] = {1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96};
  return index.pq.nbits == 8 && index.by_residual &&
         std::find(std::begin(kParts), std::end(kParts), index.pq.M) != std::end(kParts);
}

}  // namespace

size_t GpuStructureBytes(const faiss::Index* index, int64_t merged_dim) {
  const auto* const ivf = dynamic_cast<const faiss::IndexIVF*>(index);
  if (ivf == nullptr || ivf->metric_type != faiss::METRIC_L2) return 0;
  // What comes from a GPU has centroids of the base class.
  const faiss::Index& centroids = *ivf->quantizer;
  if (typeid(centroids) != typeid(faiss::IndexFlatL2) &&
      typeid(centroids) != typeid(faiss::IndexFlat)) {
    return 0;
  }
  if (typeid(*ivf) == typeid(faiss::IndexIVFScalarQuantizer)) {
    if (!GpuHasQuantizer(static_cast<const faiss::IndexIVFScalarQuantizer*>(ivf)->sq.qtype)) {
      return 0;
    }
  } else if (typeid(*ivf) == typeid(faiss::IndexIVFPQ)) {
    if (!GpuHasProductQuantizer(*static_cast<const faiss::IndexIVFPQ*>(ivf))) return 0;
  } else if (typeid(*ivf) != typeid(faiss::IndexIVFFlat)) {
    return 0;
  }
  const auto in_granules = [](size_t size) {
    return (size + kGpuGranule - 1) / kGpuGranule * kGpuGranule;
  };
  const auto dim = static_cast<size_t>(ivf->d);
  const size_t stored_dim = merged_dim > 0 ? static_cast<size_t>(merged_dim) : dim;
  const size_t code_size = ivf->code_size * stored_dim / dim;
  // Centroids, in float32, and their norms; codes and ids of 32 bits.
  size_t size_bytes = in_granules(ivf->nlist * (stored_dim + 1) * sizeof(float));
  for (size_t list = 0; list < ivf->nlist; ++list) {
    const size_t n = ivf->invlists != nullptr ? ivf->invlists->list_size(list) : 0;
    if (n == 0) continue;
    size_bytes += in_granules((n + kGpuListKeys - 1) / kGpuListKeys * kGpuListKeys * code_size) +
                  in_granules(n * sizeof(int32_t));
  }
  return size_bytes;
}

bool GpuWantsHalfTables(const faiss::Index* index) {
  const auto* const pq = dynamic_cast<const faiss::IndexIVFPQ*>(index);
  constexpr size_t kMostFloatParts = 48;
  return pq != nullptr && pq->pq.M > kMostFloatParts;
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

}  // namespace fovea::index
