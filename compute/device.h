// A device that ops run on: it owns threads (CPU) or streams, handles and workspaces (CUDA), and
// allocates the memory that ops take. Every op is a free function whose first argument is the
// Device and which dispatches on kind() to cpu/ or cuda/.
//
// **Places.** Views that an op takes lie in memory of its device, which the host may not touch
// unless is_host_memory(): it gets there by ops and copies. What an op takes as spans, plain
// pointers or lists (token ids, runs of keys, candidates) is the host's and is read before the op
// returns.
//
// **Order.** Ops and copies of a device are carried out one after another, in the order of the
// calls. An op may return before it is complete, with what it writes to device memory still under
// way; what it gives back in host memory (TopK, positions) is complete. CopyFromHost has read the
// host's memory when it returns; CopyToHost and Synchronize return when everything before is
// complete. On a CPU everything is complete when it returns. An error of something that was under
// way is returned by a later call.
//
// **Recordings.** Where starting an op takes longer than carrying out a small one, a sequence of
// ops is recorded once and carried out again and again: Record and Recording.
//
// A Device is used by one thread at a time; make one a thread. Memory, weights and contexts may go
// from one to another of the same kind and number after Synchronize.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/thread_pool.h"
#include "compute/buffer.h"
#include "compute/memory_budget.h"

namespace fovea::compute {

enum class DeviceKind { kCpu, kCuda };

// What products of many rows with weights (compute/linear.h) are computed in. kInt8 rounds both
// factors to 8 bits, with scales, on CPUs; kBFloat16 rounds both to bfloat16, on GPUs. Sums and
// everything else stay float32.
enum class Precision { kFloat32, kInt8, kBFloat16 };
std::string_view PrecisionName(Precision precision);  // "float32", "int8", "bfloat16"

// Ops that were recorded on a device, with the addresses and sizes that they were called with. Who
// keeps it keeps the memory that they use; the device's own workspaces are kept by it. For the
// thread that uses the device.
class Recording {
 public:
  virtual ~Recording() = default;
  // Carries the ops out, in the order of the calls of their device, as one op.
  virtual absl::Status Replay() = 0;
};

// The queue of a GPU's ops as CUDA has it, for libraries that queue work of their own there.
struct NativeQueue {
  int number = 0;          // of the GPU
  void* stream = nullptr;  // a cudaStream_t
};

// Of a device, in bytes.
struct DeviceMemory {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
};

class Device {
 public:
  // `spec`: "cpu" or "cuda[:N]", the GPU N (0) of the machine; n_threads 0 = all processors of the
  // process. InvalidArgument for an unknown device or precision, Unimplemented for a device that
  // this build has no part for, NotFound or Unavailable for a GPU that is not there or cannot be
  // used, saying what to do.
  // `precision`: "float32" is exact throughout. On CPUs "int8", or "auto": the faster of both, by a
  // short measurement on this machine, made once a process. On GPUs "bfloat16", which is "auto".
  static absl::StatusOr<std::unique_ptr<Device>> Create(std::string_view spec, int n_threads = 0,
                                                        std::string_view precision = "float32");
  virtual ~Device() = default;
  // One more of this processor or GPU, for another thread, with memory and an order of ops of its
  // own: neither waits for the other. Exact, with precision float32.
  virtual absl::StatusOr<std::unique_ptr<Device>> CreateAnother(int n_threads) const = 0;

  virtual DeviceKind kind() const = 0;
  // The CPU's team; on other devices the team for host-side work.
  virtual ThreadPool& threads() = 0;
  // A device whose memory is the host's, for what is computed there: a CPU is its own.
  virtual Device& host() = 0;

  // Of weights that are created from now on.
  Precision precision() const { return precision_; }
  void set_precision(Precision precision) { precision_ = precision; }
  // Whether products of few rows with quantised weights are computed in float32, too, instead of
  // from activations that are rounded to 15 bits (compute/linear.h).
  bool is_exact() const { return is_exact_; }
  void set_exact(bool is_exact) { is_exact_ = is_exact; }

  // What copies of weights in a faster form (compute/linear.h) may take, 4 GiB until it is set.
  // Weights beyond it are converted again for each batch. Shared with the weights, which may
  // outlive the device.
  const std::shared_ptr<MemoryBudget>& packed_weights() const { return packed_weights_; }

  // What a memory's entries may take of the device (memory/resident_entries.h). Unset: what is free
  // when they are loaded.
  std::optional<size_t> entry_limit_bytes() const { return entry_limit_bytes_; }
  void set_entry_limit_bytes(std::optional<size_t> limit) { entry_limit_bytes_ = limit; }
  // Free: what nobody holds, and what this process keeps to give out again. Zeros: not known.
  virtual DeviceMemory memory() const { return {}; }

  // Memory of the device. ResourceExhausted when there is none.
  absl::StatusOr<Buffer> Allocate(size_t size_bytes);
  // Makes `buffer` at least size_bytes large; the content is lost when it grows.
  absl::Status Reserve(size_t size_bytes, Buffer* buffer);

  // Host memory that copies from and to the device are fastest with. Ops read it where they say so,
  // in its place.
  virtual absl::StatusOr<Buffer> AllocatePinned(size_t size_bytes) = 0;
  // Memory of the device that holds these bytes of the host and is only read. Where the device
  // reads the host's memory this is the host's memory itself, without a copy: it must stay as it
  // is for as long as the buffer is used.
  virtual absl::StatusOr<Buffer> UploadConstant(const void* host, size_t size_bytes) = 0;
  // Whether host and device share their memory, as on a CPU: each may use the other's.
  virtual bool is_host_memory() const = 0;

  // See "Order" above. The ranges do not overlap.
  virtual absl::Status CopyFromHost(const void* host, size_t size_bytes, void* device) = 0;
  virtual absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) = 0;
  virtual absl::Status Copy(const void* from, size_t size_bytes, void* to) = 0;
  // to[0 … n) = value.
  virtual absl::Status Fill(float value, int64_t n, float* to) = 0;
  virtual absl::Status Synchronize() = 0;
  // What CopyFromHost does, from memory of AllocatePinned, which is read when the copy's turn comes
  // and not before: it stays as it is until then.
  virtual absl::Status CopyFromPinned(const void* pinned, size_t size_bytes, void* device) {
    return CopyFromHost(pinned, size_bytes, device);
  }

  // Whether recording pays, and Record can be called.
  virtual bool CanRecord() const { return false; }
  // Records the ops, Fill, Copy and CopyFromPinned that `queue` calls for, which are not carried
  // out meanwhile. It copies nothing to the host, waits for nothing, and allocates nothing: what
  // ops need beside their arguments they have when they were called once before. What it refers to
  // lives as long as the recording: it may be called again. Errors of `queue`; FailedPrecondition
  // where it allocates.
  virtual absl::StatusOr<std::unique_ptr<Recording>> Record(std::function<absl::Status()> queue);

  // Unset on devices that are no GPUs. Not while ops are recorded.
  virtual std::optional<NativeQueue> native_queue() const { return std::nullopt; }

  // Names the memory that the device allocates from: devices of one GPU have the same.
  const void* memory_id() const { return memory_id_; }

  // Whether an address is one of the device's, as far as it can tell: what ops check their views
  // with.
  virtual bool MayOwn(const void* /*data*/) const { return true; }
  // The same, or one of its AllocatePinned's.
  virtual bool MayRead(const void* data) const { return MayOwn(data); }

 protected:
  // `memory_id`: null where each device has a memory of its own.
  explicit Device(std::shared_ptr<Allocator> allocator, const void* memory_id = nullptr)
      : allocator_(std::move(allocator)),
        memory_id_(memory_id != nullptr ? memory_id : allocator_.get()) {}

  // Around every op and copy, by DeviceScope; may be nested. Where a library has a current device
  // for each thread, it becomes this one.
  friend class DeviceScope;
  virtual void Enter() {}
  virtual void Leave() {}

  bool is_recording_ = false;

 private:
  std::shared_ptr<Allocator> allocator_;
  const void* memory_id_;
  Precision precision_ = Precision::kFloat32;
  bool is_exact_ = false;
  std::optional<size_t> entry_limit_bytes_;
  std::shared_ptr<MemoryBudget> packed_weights_ = std::make_shared<MemoryBudget>(size_t{4} << 30);
};

// The calling thread works with a device while this lives: the first thing in an op.
class DeviceScope {
 public:
  explicit DeviceScope(Device& device) : device_(device) { device_.Enter(); }
  ~DeviceScope() { device_.Leave(); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  Device& device_;
};

}  // namespace fovea::compute
