// The kinds of LayerIndex behind its Build and Load, and what they share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "index/device_keys.h"
#include "index/index_file.h"
#include "index/key_ids.h"
#include "index/layer_index.h"

namespace fovea::index {

// The ids of `keys`, which every head must share; InvalidArgument where they do not.
absl::StatusOr<KeyIds> SharedIds(const std::vector<HeadKeys>& keys);

// Walks over the keys of runs by ascending position.
class KeyCursor {
 public:
  KeyCursor(const HeadKeys& runs, int64_t head_dim) : runs_(runs), head_dim_(head_dim) {}
  EntryPointer At(int64_t position) {
    while (position >= begin_ + runs_[run_].n_keys) begin_ += runs_[run_++].n_keys;
    return runs_[run_].keys + (position - begin_) * head_dim_;
  }

 private:
  const HeadKeys& runs_;
  const int64_t head_dim_;
  size_t run_ = 0;
  int64_t begin_ = 0;
};

// FAISS structures (faiss_layer_index.cc). `keys` has at least one head, head_dim >= 1.
absl::StatusOr<std::unique_ptr<LayerIndex>> BuildFaissIndex(compute::Device& device,
                                                            const std::string& spec,
                                                            const std::vector<HeadKeys>& keys,
                                                            int64_t head_dim,
                                                            const Progress& progress);
absl::StatusOr<std::unique_ptr<LayerIndex>> LoadFaissIndex(const std::filesystem::path& path,
                                                           IndexFile file);
absl::Status ValidateFaissSpec(const std::string& spec, int64_t head_dim);

// Coded scans (coded_layer_index.cc): "Scan2", "Scan4", "Scan8". 0 for other specifications.
int CodeBits(const std::string& spec);
// `spec` is a coded scan.
absl::Status ValidateCodedSpec(const std::string& spec, int64_t head_dim);
// `copied`: the keys on the device, which makes the codes then; null: the host does.
absl::StatusOr<std::unique_ptr<LayerIndex>> BuildCodedIndex(
    compute::Device& device, const std::string& spec, const std::vector<HeadKeys>& keys,
    const DeviceKeys* copied, int64_t head_dim, const Progress& progress);
absl::StatusOr<std::unique_ptr<LayerIndex>> LoadCodedIndex(const std::filesystem::path& path,
                                                           IndexFile file);

}  // namespace fovea::index
