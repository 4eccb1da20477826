// The CPU as a device: a team of threads and the workspaces that its ops share.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/huge_pages.h"
#include "compute/cpu/code_scan_scratch.h"
#include "compute/cpu/gemm.h"
#include "compute/cpu/rope_table.h"
#include "compute/device.h"

namespace fovea::compute::cpu {

// Ordinary memory of the process.
std::shared_ptr<Allocator> HostAllocator();

class CpuDevice : public Device {
 public:
  // Enough for the models that answer at once on a CPU; of larger ones a part, so that memory use
  // stays near the size of the model's file.
  static constexpr size_t kResidentBytes = size_t{512} << 20;

  explicit CpuDevice(int n_threads, std::shared_ptr<Allocator> allocator = HostAllocator())
      : Device(std::move(allocator)), threads_(n_threads), thread_scratch_(n_threads) {}

  absl::StatusOr<std::unique_ptr<Device>> CreateAnother(int n_threads) const override {
    return Device::Create("cpu", n_threads);
  }
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  ThreadPool& threads() override { return threads_; }
  Device& host() override { return *this; }
  absl::Status CopyFromHost(const void* host, size_t size_bytes, void* device) override;
  absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) override;
  absl::Status Copy(const void* from, size_t size_bytes, void* to) override;
  absl::Status Fill(float value, int64_t n, float* to) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<Buffer> AllocatePinned(size_t size_bytes) override {
    return Buffer::Allocate(HostAllocator(), size_bytes);
  }
  absl::StatusOr<Buffer> UploadConstant(const void* host, size_t size_bytes) override {
    return Buffer::Borrow(host, size_bytes);
  }
  bool is_host_memory() const override { return true; }

  // Workspaces: valid until the next op reserves one. Reserve outside of a parallel loop, use
  // thread_scratch(thread) inside.
  absl::Status ReserveThreadScratch(size_t size_bytes);
  std::byte* thread_scratch(int thread) const {
    return thread_scratch_[static_cast<size_t>(thread)].data<std::byte>();
  }
  absl::StatusOr<std::byte*> SharedScratch(size_t size_bytes);

  GemmPlans& gemm_plans() { return gemm_plans_; }
  RopeTable& rope_table() { return rope_table_; }
  CodeScanScratch& code_scan_scratch() { return code_scan_scratch_; }
  // Copies of stored weights for single-token steps. Shared with the weights, which may outlive the
  // device.
  const std::shared_ptr<HugePages>& resident_weights() const { return resident_weights_; }

 private:
  ThreadPool threads_;
  std::vector<Buffer> thread_scratch_;  // [n_threads]
  Buffer shared_scratch_;
  GemmPlans gemm_plans_;
  RopeTable rope_table_;
  CodeScanScratch code_scan_scratch_;
  std::shared_ptr<HugePages> resident_weights_ = std::make_shared<HugePages>(kResidentBytes);
};

// The CPU implementations' view of a device whose kind() is kCpu.
inline CpuDevice& AsCpu(Device& device) { return static_cast<CpuDevice&>(device); }

}  // namespace fovea::compute::cpu
