// A GPU as a device: the stream that its ops are queued on, cuBLASLt, and the workspaces of ops.
//
// All devices of one GPU in a process share a stream, so that their ops are carried out in the
// order of the calls, whoever makes them, and memory of one may be freed or used by another without
// more ado.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "compute/cpu/cpu_device.h"
#include "compute/cuda/check.h"
#include "compute/cuda/gemm.h"
#include "compute/device.h"

namespace fovea::compute::cuda {

// What the devices of a GPU share. Lives as long as any of them or of their memory.
class Gpu {
 public:
  // See CreateDevice (ops.h). The same object for the same number while it lives.
  static absl::StatusOr<std::shared_ptr<Gpu>> Open(int number);
  // The same GPU with a stream of its own: what is queued in one waits for nothing of the other.
  static absl::StatusOr<std::shared_ptr<Gpu>> OpenApart(int number);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  int number() const { return number_; }
  cudaStream_t stream() const { return stream_; }
  int n_multiprocessors() const { return n_multiprocessors_; }
  int compute_capability() const { return compute_capability_; }
  int max_shared_bytes() const { return max_shared_bytes_; }

  // Words on the GPU by which the blocks of a kernel find out which of them is the last. A kernel
  // finds and leaves zeros: those of a stream run one after another.
  static constexpr int kMaxCounters = 4096;
  uint64_t* counters() const { return counters_; }

  // Addresses that memory of the GPU was given out at lie in one range, apart from the host's.
  // Asking CUDA about each would take longer than queueing an op. Thread-safe.
  class AddressRange {
   public:
    void Add(const void* data, size_t size_bytes);
    bool Contains(const void* data) const {
      const auto address = reinterpret_cast<uintptr_t>(data);
      return address >= begin_.load(std::memory_order_relaxed) &&
             address < end_.load(std::memory_order_relaxed);
    }

   private:
    std::atomic<uintptr_t> begin_{UINTPTR_MAX};
    std::atomic<uintptr_t> end_{0};
  };
  AddressRange& addresses() { return addresses_; }
  // Of pinned host memory, which any GPU reads.
  static AddressRange& PinnedAddresses();

 private:
  Gpu() = default;
  AddressRange addresses_;
  int number_ = 0;
  cudaStream_t stream_ = nullptr;
  uint64_t* counters_ = nullptr;
  int n_multiprocessors_ = 0;
  int compute_capability_ = 0;
  int max_shared_bytes_ = 0;
};

class CudaDevice final : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(int number, int n_threads);
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(std::shared_ptr<Gpu> gpu,
                                                            int n_threads);
  ~CudaDevice() override;

  absl::StatusOr<std::unique_ptr<Device>> CreateAnother(int n_threads) const override;
  DeviceKind kind() const override { return DeviceKind::kCuda; }
  ThreadPool& threads() override { return host_.threads(); }
  Device& host() override { return host_; }
  bool is_host_memory() const override { return false; }
  bool MayOwn(const void* data) const override { return gpu_->addresses().Contains(data); }
  bool MayRead(const void* data) const override {
    return MayOwn(data) || Gpu::PinnedAddresses().Contains(data);
  }
  DeviceMemory memory() const override;
  absl::StatusOr<Buffer> AllocatePinned(size_t size_bytes) override;
  absl::StatusOr<Buffer> UploadConstant(const void* host, size_t size_bytes) override;
  absl::Status CopyFromHost(const void* host, size_t size_bytes, void* device) override;
  absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) override;
  absl::Status Copy(const void* from, size_t size_bytes, void* to) override;
  absl::Status Fill(float value, int64_t n, float* to) override;
  absl::Status Synchronize() override;
  absl::Status CopyFromPinned(const void* pinned, size_t size_bytes, void* device) override;
  bool CanRecord() const override { return true; }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<absl::Status()> queue) override;
  std::optional<NativeQueue> native_queue() const override {
    return NativeQueue{gpu_->number(), gpu_->stream()};
  }

  // Where ops are queued: those of other threads go to the same stream of the GPU, but for what is
  // recorded.
  cudaStream_t stream() const { return is_recording_ ? recording_stream_ : gpu_->stream(); }
  int n_multiprocessors() const { return gpu_->n_multiprocessors(); }
  int compute_capability() const { return gpu_->compute_capability(); }  // 90: Hopper
  int max_shared_bytes() const { return gpu_->max_shared_bytes(); }      // of a block
  uint64_t* counters() const { return gpu_->counters(); }                // see Gpu
  GemmPlans& gemm_plans() { return *gemm_plans_; }
  // A workspace of an op, valid until the next one asks for it.
  absl::StatusOr<std::byte*> Scratch(size_t size_bytes);

 protected:
  void Enter() override { cudaSetDevice(gpu_->number()); }

 private:
  CudaDevice(std::shared_ptr<Gpu> gpu, std::shared_ptr<Allocator> allocator, int n_threads)
      : Device(std::move(allocator), gpu.get()), gpu_(std::move(gpu)), host_(n_threads) {}

  std::shared_ptr<Gpu> gpu_;
  cpu::CpuDevice host_;
  std::shared_ptr<Buffer> scratch_;  // shared with recordings that use it
  cudaStream_t recording_stream_ = nullptr;
  std::unique_ptr<GemmPlans> gemm_plans_;
};

// The CUDA implementations' view of a device whose kind() is kCuda.
inline CudaDevice& AsCuda(Device& device) { return static_cast<CudaDevice&>(device); }

// Whether the kernel that was just launched could be: what ops return.
inline absl::Status LaunchStatus(std::string_view op) {
  RETURN_IF_CUDA_ERROR(cudaGetLastError(), op);
  return absl::OkStatus();
}

// Whether this build holds kernels that the current GPU can carry out, or its driver can translate.
cudaError_t FindKernels();

// to[0 … n) = value; queued.
void LaunchFill(float value, int64_t n, float* to, cudaStream_t stream);

}  // namespace fovea::compute::cuda
