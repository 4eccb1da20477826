// A device whose memory the host cannot touch: it is unmapped for everybody but while an op or a
// copy runs, and ops refuse addresses of anybody else. What works on it dereferences no memory of a
// device, and gives ops none of the host's: it works on a device with memory of its own.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>

#include "compute/cpu/cpu_device.h"

namespace fovea::compute {

// A reserved range of addresses, given out page by page and never twice.
class GuardedMemory final : public Allocator {
 public:
  GuardedMemory() {
    void* const base = mmap(nullptr, kReservedBytes, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    FOVEA_CHECK(base != MAP_FAILED);
    base_ = static_cast<std::byte*>(base);
  }
  ~GuardedMemory() override { munmap(base_, kReservedBytes); }

  absl::StatusOr<void*> Allocate(size_t size_bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t rounded = (size_bytes / page + 1) * page;
    if (size_bytes > kReservedBytes || rounded > kReservedBytes - used_bytes_) {
      return absl::ResourceExhaustedError(StrCat("guarded: cannot allocate ", size_bytes));
    }
    std::byte* const data = base_ + used_bytes_;
    used_bytes_ += rounded;
    if (n_open_ > 0) Protect(PROT_READ | PROT_WRITE);
    return data;
  }
  void Free(void*, size_t) override {}

  bool Contains(const void* data) const { return data >= base_ && data < base_ + kReservedBytes; }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (n_open_++ == 0) Protect(PROT_READ | PROT_WRITE);
  }
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--n_open_ == 0) Protect(PROT_NONE);
  }

 private:
  static constexpr size_t kReservedBytes = size_t{4} << 30;

  void Protect(int protection) {
    if (used_bytes_ == 0) return;
    FOVEA_CHECK(mprotect(base_, used_bytes_, protection) == 0);
  }

  std::mutex mutex_;
  std::byte* base_ = nullptr;
  size_t used_bytes_ = 0;
  int n_open_ = 0;
};

class GuardedDevice final : public cpu::CpuDevice {
 public:
  // Exact, as a device of precision "float32".
  explicit GuardedDevice(int n_threads) : GuardedDevice(n_threads, MakeMemory()) {
    set_exact(true);
  }

  absl::StatusOr<std::unique_ptr<Device>> CreateAnother(int n_threads) const override {
    return std::make_unique<GuardedDevice>(n_threads);
  }
  bool is_host_memory() const override { return false; }
  Device& host() override { return host_; }
  bool MayOwn(const void* data) const override { return memory_->Contains(data); }
  bool MayRead(const void* data) const override {
    const auto after = pinned_.upper_bound(static_cast<const std::byte*>(data));
    return MayOwn(data) || (after != pinned_.begin() && data < std::prev(after)->second);
  }
  absl::StatusOr<Buffer> AllocatePinned(size_t size_bytes) override {
    ASSIGN_OR_RETURN(Buffer buffer, CpuDevice::AllocatePinned(size_bytes));
    const auto* const begin = buffer.data<const std::byte>();
    pinned_[begin] = begin + size_bytes;
    return buffer;
  }
  DeviceMemory memory() const override { return memory_size_; }
  void set_memory(DeviceMemory memory) { memory_size_ = memory; }
  absl::StatusOr<Buffer> UploadConstant(const void* host, size_t size_bytes) override {
    ASSIGN_OR_RETURN(Buffer buffer, Allocate(size_bytes));
    RETURN_IF_ERROR(CopyFromHost(host, size_bytes, buffer.data<void>()));
    return buffer;
  }
  absl::Status CopyFromHost(const void* host, size_t size_bytes, void* device) override {
    const DeviceScope scope(*this);
    FOVEA_CHECK(!MayOwn(host) && (size_bytes == 0 || MayOwn(device)));
    return CpuDevice::CopyFromHost(host, size_bytes, device);
  }
  absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) override {
    const DeviceScope scope(*this);
    FOVEA_CHECK(!MayOwn(host) && (size_bytes == 0 || MayOwn(device)));
    return CpuDevice::CopyToHost(device, size_bytes, host);
  }
  absl::Status Copy(const void* from, size_t size_bytes, void* to) override {
    const DeviceScope scope(*this);
    FOVEA_CHECK(size_bytes == 0 || (MayOwn(from) && MayOwn(to)));
    return CpuDevice::Copy(from, size_bytes, to);
  }
  absl::Status Fill(float value, int64_t n, float* to) override {
    const DeviceScope scope(*this);
    FOVEA_CHECK(n == 0 || MayOwn(to));
    return CpuDevice::Fill(value, n, to);
  }

  // Ops, copies and fills so far.
  int n_ops() const { return n_ops_; }

  // Recordings that were carried out so far.
  int n_replays() const { return n_replays_; }

  // A recording calls the ops again, which then get no memory.
  bool CanRecord() const override { return true; }
  absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<absl::Status()> queue) override {
    return std::make_unique<CalledAgain>(this, std::move(queue));
  }

 protected:
  void Enter() override {
    n_ops_ += depth_++ == 0 ? 1 : 0;
    memory_->Open();
  }
  void Leave() override {
    --depth_;
    memory_->Close();
  }

 private:
  class CalledAgain final : public Recording {
   public:
    CalledAgain(GuardedDevice* device, std::function<absl::Status()> queue)
        : device_(device), queue_(std::move(queue)) {}
    absl::Status Replay() override {
      ++device_->n_replays_;
      device_->is_recording_ = true;
      const absl::Status status = queue_();
      device_->is_recording_ = false;
      return status;
    }

   private:
    GuardedDevice* const device_;
    const std::function<absl::Status()> queue_;
  };

  GuardedDevice(int n_threads, std::shared_ptr<GuardedMemory> memory)
      : CpuDevice(n_threads, memory), memory_(std::move(memory)), host_(n_threads) {
    host_.set_exact(true);
  }
  static std::shared_ptr<GuardedMemory> MakeMemory() { return std::make_shared<GuardedMemory>(); }

  std::shared_ptr<GuardedMemory> memory_;
  CpuDevice host_;
  std::atomic<int> n_ops_ = 0;
  std::atomic<int> n_replays_ = 0;
  std::atomic<int> depth_ = 0;                           // of scopes in one another
  std::map<const std::byte*, const std::byte*> pinned_;  // begin → end
  DeviceMemory memory_size_;
};

}  // namespace fovea::compute
