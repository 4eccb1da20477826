// A layer's index where a device with memory of its own searches it: what a GPU's FAISS makes of
// one that was built, loaded or is about to be saved (LayerIndex::CopyTo). Its ids stay with the
// host: a search names keys by their numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "index/key_ids.h"
#include "index/layer_index.h"

namespace fovea::index {

struct DeviceSearchArgs {
  const float* queries = nullptr;  // [n_queries, n_heads, head_dim], in the device's memory
  int64_t n_queries = 0;
  int64_t n_heads = 0;   // a multiple of the index's n_kv_heads
  int n_candidates = 0;  // 1 … kMaxDeviceCandidates
  int n_probe = 0;       // as LayerSearchArgs has it, up to kMaxDeviceProbe
  // = [n_kv_heads, n_queries, group, n_candidates]: numbers of keys, in the order of ids(); −1
  // where fewer were found. Device memory.
  int64_t* keys = nullptr;
};
inline constexpr int kMaxDeviceCandidates = 2048;  // of FAISS on a GPU
inline constexpr int kMaxDeviceProbe = 2048;

// Immutable. Search is thread-safe with a Device a thread; their ops have the order of those of the
// device that it was copied to (not CreateAnother's), else it is InvalidArgument on a GPU.
class DeviceIndex {
 public:
  virtual ~DeviceIndex() = default;
  // Queued with the device's ops; the host takes part, so that it cannot be recorded.
  virtual absl::Status Search(compute::Device& device, const DeviceSearchArgs& args) const = 0;
  virtual const KeyIds& ids() const = 0;
};

// LayerIndex::Search by way of the device: queries and candidates lie with the host. No filter.
absl::Status SearchOnDevice(compute::Device& device, const DeviceIndex& index, int64_t n_kv_heads,
                            int64_t head_dim, const LayerSearchArgs& args,
                            std::vector<int64_t>* candidates);

}  // namespace fovea::index
