#include "compute/cuda/cuda_device.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "base/processors.h"
#include "base/system_memory.h"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

// The oldest GPUs that this build holds machine code for (CMakeLists.txt).
constexpr int kOldestMajor = 8;

GpuSurroundings Surroundings() {
  GpuSurroundings surroundings;
  if (cudaDriverGetVersion(&surroundings.driver_version) != cudaSuccess) {
    surroundings.driver_version = 0;
  }
  cudaGetLastError();  // what went wrong is told by who asks
  surroundings.visible_gpus = std::getenv("CUDA_VISIBLE_DEVICES");
  return surroundings;
}

class PoolAllocator final : public Allocator {
 public:
  explicit PoolAllocator(std::shared_ptr<Gpu> gpu) : gpu_(std::move(gpu)) {}

  absl::StatusOr<void*> Allocate(size_t size_bytes) override {
    cudaSetDevice(gpu_->number());
    void* data = nullptr;
    // 0 bytes have an address, too.
    const size_t n = size_bytes > 0 ? size_bytes : 1;
    const cudaError_t error = cudaMallocAsync(&data, n, gpu_->stream());
    if (error == cudaSuccess) {
      gpu_->addresses().Add(data, n);
      return data;
    }
    cudaGetLastError();  // it is told here
    if (error != cudaErrorMemoryAllocation && error != cudaErrorInvalidValue) {
      return ToStatus(error, "allocating memory of the GPU");
    }
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return absl::ResourceExhaustedError(
        StrCat("cuda:", gpu_->number(), ": cannot allocate ", size_bytes, " bytes, ", free_bytes,
               " of ", total_bytes,
               " are free: end other programs that use the GPU (`nvidia-smi` names them), use a "
               "smaller model or window, another GPU (cuda:N), or device 'cpu'"));
  }
  void Free(void* data, size_t /*size_bytes*/) override {
    cudaSetDevice(gpu_->number());
    cudaFreeAsync(data, gpu_->stream());
  }

 private:
  const std::shared_ptr<Gpu> gpu_;
};

class PinnedAllocator final : public Allocator {
 public:
  absl::StatusOr<void*> Allocate(size_t size_bytes) override {
    void* data = nullptr;
    const size_t n = size_bytes > 0 ? size_bytes : 1;
    const cudaError_t error = cudaHostAlloc(&data, n, cudaHostAllocPortable | cudaHostAllocMapped);
    if (error == cudaSuccess) {
      Gpu::PinnedAddresses().Add(data, n);
      return data;
    }
    cudaGetLastError();  // it is told here
    return absl::ResourceExhaustedError(
        StrCat("cannot allocate ", size_bytes, " bytes of pinned host memory (",
               cudaGetErrorString(error), "), ", GetSystemMemory().available_bytes,
               " are available: close other programs, or use device 'cpu'"));
  }
  void Free(void* data, size_t /*size_bytes*/) override { cudaFreeHost(data); }
};

}  // namespace

absl::StatusOr<std::shared_ptr<Gpu>> Gpu::Open(int number) {
  static std::mutex mutex;
  static auto* const opened = new std::map<int, std::weak_ptr<Gpu>>();
  const std::lock_guard<std::mutex> lock(mutex);
  if (std::shared_ptr<Gpu> gpu = (*opened)[number].lock(); gpu != nullptr) return gpu;
  ASSIGN_OR_RETURN(std::shared_ptr<Gpu> gpu, OpenApart(number));
  (*opened)[number] = gpu;
  return gpu;
}

absl::StatusOr<std::shared_ptr<Gpu>> Gpu::OpenApart(int number) {
  int n_gpus = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&n_gpus); error != cudaSuccess) {
    return ExplainNoGpu(error, Surroundings());
  }
  if (n_gpus == 0) return ExplainNoGpu(cudaErrorNoDevice, Surroundings());
  if (number < 0 || number >= n_gpus) return ExplainNoSuchGpu(number, n_gpus, Surroundings());
  cudaDeviceProp properties;
  RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, number), "asking for the GPU");
  if (properties.major < kOldestMajor) {
    return absl::UnavailableError(StrCat(
        "GPU ", number, " (", properties.name, ") has compute capability ", properties.major, ".",
        properties.minor, ", fovea needs ", kOldestMajor, ".0 or later: use device 'cpu'"));
  }
  const std::string using_it = StrCat("starting to use GPU ", number, " (", properties.name, ")");
  RETURN_IF_CUDA_ERROR(cudaSetDevice(number),
                       StrCat(using_it, ", of which any program first takes some 500 MB"));
  // Before anything is read or begun.
  RETURN_IF_CUDA_ERROR(FindKernels(), StrCat(using_it, ", which has compute capability ",
                                             properties.major, ".", properties.minor));
  std::shared_ptr<Gpu> gpu(new Gpu);
  gpu->number_ = number;
  gpu->n_multiprocessors_ = properties.multiProcessorCount;
  gpu->compute_capability_ = 10 * properties.major + properties.minor;
  gpu->max_shared_bytes_ = static_cast<int>(properties.sharedMemPerBlockOptin);
  RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&gpu->stream_, cudaStreamNonBlocking), using_it);
  constexpr size_t kCounterBytes = kMaxCounters * sizeof(uint64_t);
  RETURN_IF_CUDA_ERROR(cudaMalloc(&gpu->counters_, kCounterBytes), using_it);
  RETURN_IF_CUDA_ERROR(cudaMemsetAsync(gpu->counters_, 0, kCounterBytes, gpu->stream_), using_it);
  // Memory that was freed is kept for the next who asks: giving it back to the driver takes
  // milliseconds.
  cudaMemPool_t pool = nullptr;
  RETURN_IF_CUDA_ERROR(cudaDeviceGetDefaultMemPool(&pool, number), "the GPU's memory pool");
  uint64_t keep_bytes = UINT64_MAX;
  RETURN_IF_CUDA_ERROR(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_bytes),
                       "the GPU's memory pool");
  return gpu;
}

Gpu::~Gpu() {
  if (stream_ == nullptr) return;
  cudaSetDevice(number_);
  cudaStreamSynchronize(stream_);
  cudaFree(counters_);
  cudaStreamDestroy(stream_);
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(int number, int n_threads) {
  ASSIGN_OR_RETURN(std::shared_ptr<Gpu> gpu, Gpu::Open(number));
  return Create(std::move(gpu), n_threads);
}

absl::StatusOr<std::unique_ptr<Device>> CudaDevice::CreateAnother(int n_threads) const {
  ASSIGN_OR_RETURN(std::shared_ptr<Gpu> gpu, Gpu::OpenApart(gpu_->number()));
  return Create(std::move(gpu), n_threads);
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(std::shared_ptr<Gpu> gpu,
                                                               int n_threads) {
  auto allocator = std::make_shared<PoolAllocator>(gpu);
  std::unique_ptr<CudaDevice> device(
      new CudaDevice(gpu, std::move(allocator), n_threads > 0 ? n_threads : NumProcessors()));
  ASSIGN_OR_RETURN(device->gemm_plans_, GemmPlans::Create());
  // Half of what is free: models that fill a GPU leave no room for copies.
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for the GPU's memory");
  device->packed_weights()->set_limit_bytes(free_bytes / 2);
  return device;
}

CudaDevice::~CudaDevice() {
  if (recording_stream_ == nullptr) return;
  const DeviceScope scope(*this);
  cudaStreamDestroy(recording_stream_);
}

void Gpu::AddressRange::Add(const void* data, size_t size_bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  uintptr_t first = begin_.load(std::memory_order_relaxed);
  while (begin < first && !begin_.compare_exchange_weak(first, begin)) {
  }
  uintptr_t end = end_.load(std::memory_order_relaxed);
  while (begin + size_bytes > end && !end_.compare_exchange_weak(end, begin + size_bytes)) {
  }
}

Gpu::AddressRange& Gpu::PinnedAddresses() {
  static AddressRange* const range = new AddressRange();
  return *range;
}

DeviceMemory CudaDevice::memory() const {
  cudaSetDevice(gpu_->number());
  DeviceMemory memory;
  if (cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes) != cudaSuccess) {
    cudaGetLastError();  // it is told here
    return {};
  }
  // What was freed is kept in the pool for the next who asks.
  cudaMemPool_t pool = nullptr;
  uint64_t reserved = 0;
  uint64_t used = 0;
  if (cudaDeviceGetDefaultMemPool(&pool, gpu_->number()) == cudaSuccess &&
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved) == cudaSuccess &&
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used) == cudaSuccess &&
      reserved > used) {
    memory.free_bytes += reserved - used;
  }
  return memory;
}

absl::StatusOr<Buffer> CudaDevice::AllocatePinned(size_t size_bytes) {
  const DeviceScope scope(*this);
  static const std::shared_ptr<Allocator> allocator = std::make_shared<PinnedAllocator>();
  return Buffer::Allocate(allocator, size_bytes);
}

absl::StatusOr<Buffer> CudaDevice::UploadConstant(const void* host, size_t size_bytes) {
  ASSIGN_OR_RETURN(Buffer buffer, Allocate(size_bytes));
  RETURN_IF_ERROR(CopyFromHost(host, size_bytes, buffer.data<void>()));
  return buffer;
}

absl::Status CudaDevice::CopyFromHost(const void* host, size_t size_bytes, void* device) {
  if (size_bytes == 0) return absl::OkStatus();
  const DeviceScope scope(*this);
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(device, host, size_bytes, cudaMemcpyHostToDevice, stream()),
                       "copying to the GPU");
  // Pageable memory has been read when the call returns; pinned memory is read later.
  cudaPointerAttributes attributes;
  const bool is_pinned = cudaPointerGetAttributes(&attributes, host) == cudaSuccess &&
                         attributes.type == cudaMemoryTypeHost;
  return is_pinned ? Synchronize() : absl::OkStatus();
}

absl::Status CudaDevice::CopyToHost(const void* device, size_t size_bytes, void* host) {
  if (size_bytes == 0) return absl::OkStatus();
  const DeviceScope scope(*this);
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(host, device, size_bytes, cudaMemcpyDeviceToHost, stream()),
                       "copying from the GPU");
  return Synchronize();
}

absl::Status CudaDevice::Copy(const void* from, size_t size_bytes, void* to) {
  if (size_bytes == 0) return absl::OkStatus();
  const DeviceScope scope(*this);
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToDevice, stream()),
                       "copying on the GPU");
  return absl::OkStatus();
}

absl::Status CudaDevice::Fill(float value, int64_t n, float* to) {
  if (n == 0) return absl::OkStatus();
  const DeviceScope scope(*this);
  LaunchFill(value, n, to, stream());
  return LaunchStatus("Fill");
}

absl::Status CudaDevice::Synchronize() {
  const DeviceScope scope(*this);
  RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream()), "waiting for the GPU");
  return absl::OkStatus();
}

absl::StatusOr<std::byte*> CudaDevice::Scratch(size_t size_bytes) {
  if (scratch_ == nullptr || scratch_->size_bytes() < size_bytes) {
    if (scratch_.use_count() == 1 && !is_recording_) scratch_.reset();  // see Reserve
    ASSIGN_OR_RETURN(Buffer buffer, Allocate(size_bytes));
    scratch_ = std::make_shared<Buffer>(std::move(buffer));
  }
  return scratch_->data<std::byte>();
}

namespace {

// A CUDA graph.
class CudaRecording final : public Recording {
 public:
  CudaRecording(std::shared_ptr<Gpu> gpu, std::shared_ptr<Buffer> scratch, cudaGraphExec_t graph)
      : gpu_(std::move(gpu)), scratch_(std::move(scratch)), graph_(graph) {}
  ~CudaRecording() override {
    cudaSetDevice(gpu_->number());
    cudaStreamSynchronize(gpu_->stream());
    cudaGraphExecDestroy(graph_);
  }
  absl::Status Replay() override {
    cudaSetDevice(gpu_->number());
    RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph_, gpu_->stream()), "starting what was recorded");
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<Gpu> gpu_;
  const std::shared_ptr<Buffer> scratch_;
  const cudaGraphExec_t graph_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Recording>> CudaDevice::Record(std::function<absl::Status()> queue) {
  constexpr std::string_view kWhat = "recording ops of the GPU";
  const DeviceScope scope(*this);
  FOVEA_CHECK(!is_recording_);
  if (recording_stream_ == nullptr) {
    RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&recording_stream_, cudaStreamNonBlocking),
                         kWhat);
  }
  RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(recording_stream_, cudaStreamCaptureModeRelaxed),
                       kWhat);
  is_recording_ = true;
  const absl::Status queued = queue();
  is_recording_ = false;
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(recording_stream_, &graph);
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = ended == cudaSuccess && queued.ok()
                               ? cudaGraphInstantiate(&executable, graph, 0)
                               : cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // it is told here
  RETURN_IF_ERROR(queued);
  RETURN_IF_CUDA_ERROR(ended, kWhat);
  RETURN_IF_CUDA_ERROR(made, kWhat);
  return std::make_unique<CudaRecording>(gpu_, scratch_, executable);
}

absl::Status CudaDevice::CopyFromPinned(const void* pinned, size_t size_bytes, void* device) {
  if (size_bytes == 0) return absl::OkStatus();
  const DeviceScope scope(*this);
  RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(device, pinned, size_bytes, cudaMemcpyHostToDevice, stream()),
      "copying to the GPU");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Device>> CreateDevice(int number, int n_threads) {
  return CudaDevice::Create(number, n_threads);
}

}  // namespace fovea::compute::cuda
