// FAISS's GPU part: structures are trained, filled and searched on a GPU. In a build whose FAISS
// has none (faiss_no_gpu.cc) HasFaissGpu is false and the rest is never called.
#pragma once

#include <faiss/Index.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "compute/device.h"
#include "index/device_index.h"
#include "index/faiss_merge.h"
#include "index/key_ids.h"

namespace fovea::index {

bool HasFaissGpu();

// Copies `heads`, which share `ids`, to the device's GPU, as one structure where they can be one
// (index/faiss_merge.h). The structures are ones that GpuStructureBytes knows. ResourceExhausted
// where the GPU has no room.
absl::StatusOr<std::unique_ptr<DeviceIndex>> CopyFaissToGpu(compute::Device& device,
                                                            const std::vector<FaissHead>& heads,
                                                            const KeyIds& ids, int64_t head_dim);

// A structure like `empty`, which has no keys and is not trained, on a GPU. ResourceExhausted where
// that has no room; exceptions are FAISS's.
absl::StatusOr<std::unique_ptr<faiss::Index>> MoveEmptyToGpu(const compute::Device& device,
                                                             const faiss::Index& empty);
// A copy of what MoveEmptyToGpu gave, with its keys, in the host's memory.
std::unique_ptr<faiss::Index> CopyFaissFromGpu(const faiss::Index& on_gpu);

}  // namespace fovea::index
