// What index/faiss_gpu.h declares, where FAISS has no GPU part.
#include "index/faiss_gpu.h"

namespace fovea::index {

bool HasFaissGpu() { return false; }

absl::StatusOr<std::unique_ptr<DeviceIndex>> CopyFaissToGpu(compute::Device&,
                                                            const std::vector<FaissHead>&,
                                                            const KeyIds&, int64_t) {
  return absl::UnimplementedError("this build's FAISS has no GPU part");
}

absl::StatusOr<std::unique_ptr<faiss::Index>> MoveEmptyToGpu(const compute::Device&,
                                                             const faiss::Index&) {
  return absl::UnimplementedError("this build's FAISS has no GPU part");
}
std::unique_ptr<faiss::Index> CopyFaissFromGpu(const faiss::Index&) { return nullptr; }

}  // namespace fovea::index
