#include "index/faiss_gpu.h"

#include <cuda_runtime.h>
#include <faiss/IndexIVF.h>
#include <faiss/gpu/GpuCloner.h>
#include <faiss/gpu/GpuIndexIVF.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "compute/buffer.h"
#include "compute/index_queries.h"
#include "index/faiss_call.h"
#include "index/faiss_search.h"
#include "index/faiss_structure.h"

namespace fovea::index {
namespace {

// What FAISS keeps of the GPU for searches. More would be of use to batches of many thousand
// queries alone.
constexpr size_t kTempBytes = size_t{256} << 20;
// Pinned memory speeds up copies of batches, which searches do not make.
constexpr size_t kPinnedBytes = size_t{1} << 20;

// What FAISS takes before it begins on a stream, without an index: cuBLAS has a workspace of its
// own, and where that is not to be had FAISS ends the process.
constexpr size_t kStartBytes = size_t{256} << 20;
// What FAISS keeps of the GPU while it builds: its own choice.
constexpr size_t kBuildTempBytes = size_t{1536} << 20;

constexpr FaissAction kCopying{"copying an index to the GPU",
                               "search without it (--mode exact), or with --device cpu"};
constexpr FaissAction kSearching{"index search on the GPU",
                                 "search without it (--mode exact), or with --device cpu"};

// Whether FAISS can take these bytes with an allocator of its own: tried, since what our ops freed
// and keep for one another counts as free, and is given back to the GPU for it here.
absl::Status MakeRoom(const compute::Device& device, std::string_view action, size_t temp_bytes) {
  const size_t wanted = kStartBytes + temp_bytes;
  const compute::NativeQueue queue = *device.native_queue();
  int before = 0;
  cudaMemPool_t pool = nullptr;
  void* tried = nullptr;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) error = cudaSetDevice(queue.number);
  // What was freed is so when the ops before have been carried out.
  if (error == cudaSuccess) error = cudaStreamSynchronize(static_cast<cudaStream_t>(queue.stream));
  if (error == cudaSuccess) error = cudaDeviceGetDefaultMemPool(&pool, queue.number);
  if (error == cudaSuccess) error = cudaMemPoolTrimTo(pool, 0);
  if (error == cudaSuccess) error = cudaMalloc(&tried, wanted);
  if (error == cudaSuccess) error = cudaFree(tried);
  cudaSetDevice(before);
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // is told here: nobody else is to find it
  if (error != cudaErrorMemoryAllocation) {
    return absl::InternalError(StrCat(action, ": ", cudaGetErrorString(error)));
  }
  return absl::ResourceExhaustedError(StrCat(action, ": out of memory on the GPU: FAISS takes ",
                                             wanted >> 20, " MiB before it begins, ",
                                             device.memory().free_bytes >> 20, " MiB are free"));
}

// FAISS's own needs for searches, queued on the stream of a device's ops. One thread at a time.
struct SearchResources {
  std::mutex mutex;
  void* stream = nullptr;
  compute::Buffer queries, distances;  // they keep the stream alive: they go after FAISS's part
  faiss::gpu::StandardGpuResources faiss;
};

// Made once for each stream, which takes a tenth of a second, while somebody has an index there.
// Devices of a GPU share a stream, but for those that are to wait for nobody
// (Device::CreateAnother). ResourceExhausted where the GPU has no room for them.
absl::StatusOr<std::shared_ptr<SearchResources>> ResourcesOf(const compute::Device& device) {
  const compute::NativeQueue queue = *device.native_queue();
  static std::mutex mutex;
  static auto& all = *new std::map<void*, std::weak_ptr<SearchResources>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::erase_if(all, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<SearchResources>& of_stream = all[queue.stream];
  std::shared_ptr<SearchResources> resources = of_stream.lock();
  if (resources == nullptr) {
    RETURN_IF_ERROR(MakeRoom(device, kCopying.action, kTempBytes));
    resources = std::make_shared<SearchResources>();
    resources->stream = queue.stream;
    resources->faiss.setTempMemory(kTempBytes);
    resources->faiss.setPinnedMemory(kPinnedBytes);
    resources->faiss.setDefaultStream(queue.number, static_cast<cudaStream_t>(queue.stream));
    of_stream = resources;
  }
  return resources;
}

faiss::gpu::GpuClonerOptions ClonerOptions() {
  faiss::gpu::GpuClonerOptions options;
  options.use_cuvs = false;  // the structures that the CPU has, bit for bit
  return options;
}

class GpuFaissIndex final : public DeviceIndex {
 public:
  GpuFaissIndex(std::shared_ptr<SearchResources> resources, KeyIds ids, int64_t head_dim)
      : resources_(std::move(resources)), ids_(std::move(ids)), head_dim_(head_dim) {}
  ~GpuFaissIndex() override {
    const std::lock_guard<std::mutex> lock(resources_->mutex);
    structures_.clear();
  }

  absl::Status Copy(compute::Device& device, const std::vector<FaissHead>& heads) {
    const std::lock_guard<std::mutex> lock(resources_->mutex);
    RETURN_IF_ERROR(device.Reserve(sizeof(float), &resources_->queries));
    std::vector<float> radii;
    default_probe_ = FaissEffort(heads[0].index, 0);
    max_probe_ = std::min(FaissProbeRange(heads[0].index).second, kMaxDeviceProbe);
    faiss::gpu::GpuClonerOptions options = ClonerOptions();
    options.indicesOptions = faiss::gpu::INDICES_32_BIT;  // there are fewer than 2³¹ keys
    const auto copy = [&](const faiss::Index* index) {
      structures_.emplace_back(faiss::gpu::index_cpu_to_gpu(
          &resources_->faiss, device.native_queue()->number, index, &options));
    };
    n_kv_heads_ = static_cast<int64_t>(heads.size());
    RETURN_IF_ERROR(CallFaiss(kCopying, [&]() -> absl::Status {
      const MergedHeads merged = MergeHeads(heads);
      if (merged.index != nullptr) {
        first_axis_ = merged.first_axis;
        axis_value_ = merged.axis_value;
        copy(merged.index.get());
        return absl::OkStatus();
      }
      for (const FaissHead& head : heads) {
        options.useFloat16 = GpuWantsHalfTables(head.index);
        copy(head.index);
      }
      return absl::OkStatus();
    }));
    for (const FaissHead& head : heads) radii.push_back(head.radius);
    if (heads[0].radius > 0.0f) {
      ASSIGN_OR_RETURN(radii_, device.Allocate(radii.size() * sizeof(float)));
      RETURN_IF_ERROR(
          device.CopyFromHost(radii.data(), radii.size() * sizeof(float), radii_.data<void>()));
    }
    return absl::OkStatus();
  }

  absl::Status Search(compute::Device& device, const DeviceSearchArgs& args) const override {
    const int64_t n_kv_heads = n_kv_heads_;
    if (args.n_heads % n_kv_heads != 0 || args.n_candidates < 1 ||
        args.n_candidates > kMaxDeviceCandidates) {
      return absl::InvalidArgumentError(
          StrCat(kSearching.action, ": ", args.n_heads, " heads, ", args.n_candidates,
                 " candidates, want a multiple of ", n_kv_heads, " heads and 1 … ",
                 kMaxDeviceCandidates, " candidates"));
    }
    const auto queue = device.native_queue();
    if (!queue.has_value() || queue->stream != resources_->stream) {
      return absl::InvalidArgumentError(
          StrCat(kSearching.action, ": the index was copied to another device"));
    }
    const int64_t n_lists = args.n_queries * (args.n_heads / n_kv_heads);
    if (n_lists == 0) return absl::OkStatus();
    const int64_t index_dim = structures_[0]->d;
    const std::lock_guard<std::mutex> lock(resources_->mutex);
    compute::Buffer& queries = resources_->queries;
    compute::Buffer& distances = resources_->distances;
    RETURN_IF_ERROR(device.Reserve(
        static_cast<size_t>(n_kv_heads * n_lists * index_dim) * sizeof(float), &queries));
    RETURN_IF_ERROR(device.Reserve(
        static_cast<size_t>(n_kv_heads * n_lists * args.n_candidates) * sizeof(float), &distances));
    compute::IndexQueriesArgs map{
        .queries = {args.queries, {args.n_queries, args.n_heads, head_dim_}},
        .first_axis = first_axis_,
        .axis_value = axis_value_,
        .out = {queries.data<float>(), {n_kv_heads, n_lists, index_dim}}};
    if (radii_.size_bytes() > 0) map.radii = {radii_.data<float>(), {n_kv_heads}};
    RETURN_IF_ERROR(compute::IndexQueries(device, map));
    return CallFaiss(kSearching, [&]() -> absl::Status {
      faiss::SearchParametersIVF parameters;
      parameters.nprobe = static_cast<size_t>(
          std::clamp(args.n_probe > 0 ? args.n_probe : default_probe_, 1, max_probe_));
      const int64_t n_rows =
          n_kv_heads * n_lists / static_cast<int64_t>(structures_.size());  // of each structure
      for (size_t s = 0; s < structures_.size(); ++s) {
        const auto first = static_cast<int64_t>(s) * n_rows;
        structures_[s]->search(n_rows, queries.data<float>() + first * index_dim, args.n_candidates,
                               distances.data<float>() + first * args.n_candidates,
                               args.keys + first * args.n_candidates, &parameters);
      }
      return absl::OkStatus();
    });
  }

  const KeyIds& ids() const override { return ids_; }

 private:
  const std::shared_ptr<SearchResources> resources_;
  const KeyIds ids_;
  const int64_t head_dim_;
  int default_probe_ = 0;
  int max_probe_ = 0;
  int64_t n_kv_heads_ = 0;
  std::vector<std::unique_ptr<faiss::Index>> structures_;  // one a KV head, or one of all
  int64_t first_axis_ = 0;                                 // of one of all
  float axis_value_ = 0.0f;
  compute::Buffer radii_;  // [n_kv_heads]; of no size: queries stay as they are
};

}  // namespace

bool HasFaissGpu() { return true; }

absl::StatusOr<std::unique_ptr<DeviceIndex>> CopyFaissToGpu(compute::Device& device,
                                                            const std::vector<FaissHead>& heads,
                                                            const KeyIds& ids, int64_t head_dim) {
  std::shared_ptr<SearchResources> resources;
  RETURN_IF_ERROR(CallFaiss(kCopying, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(resources, ResourcesOf(device));
    return absl::OkStatus();
  }));
  auto index = std::make_unique<GpuFaissIndex>(std::move(resources), ids, head_dim);
  RETURN_IF_ERROR(index->Copy(device, heads));
  return index;
}

absl::StatusOr<std::unique_ptr<faiss::Index>> MoveEmptyToGpu(const compute::Device& device,
                                                             const faiss::Index& empty) {
  RETURN_IF_ERROR(MakeRoom(device, "building an index on the GPU", kBuildTempBytes));
  // Of its own, on a stream of its own: other threads may search meanwhile. The index keeps what
  // it needs.
  faiss::gpu::StandardGpuResources resources;
  faiss::gpu::GpuClonerOptions options = ClonerOptions();
  options.useFloat16 = GpuWantsHalfTables(&empty);
  std::unique_ptr<faiss::Index> on_gpu(
      faiss::gpu::index_cpu_to_gpu(&resources, device.native_queue()->number, &empty, &options));
  // How it is trained is not copied.
  if (auto* ivf = dynamic_cast<faiss::gpu::GpuIndexIVF*>(on_gpu.get())) {
    ivf->cp = static_cast<const faiss::IndexIVF&>(empty).cp;
  }
  return on_gpu;
}

std::unique_ptr<faiss::Index> CopyFaissFromGpu(const faiss::Index& on_gpu) {
  return std::unique_ptr<faiss::Index>(faiss::gpu::index_gpu_to_cpu(&on_gpu));
}

}  // namespace fovea::index
