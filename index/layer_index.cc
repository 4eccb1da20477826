#include "index/layer_index.h"

#include <limits>
#include <utility>

#include "index/device_index.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {

absl::StatusOr<KeyIds> SharedIds(const std::vector<HeadKeys>& keys) {
  std::vector<IdRun> runs;
  for (size_t head = 0; head < keys.size(); ++head) {
    std::vector<IdRun> head_runs;
    int64_t end = 0;
    for (const compute::KeyRun& run : keys[head]) {
      if (run.n_keys == 0) continue;
      if (run.n_keys < 0 || run.first_id < end) {
        return absl::InvalidArgumentError(StrCat("index build: head ", head, ": run of ",
                                                 run.n_keys, " keys from id ", run.first_id,
                                                 " after id ", end, ", want ascending runs"));
      }
      end = run.first_id + run.n_keys;
      if (!head_runs.empty() && head_runs.back().first_id + head_runs.back().n == run.first_id) {
        head_runs.back().n += run.n_keys;
      } else {
        head_runs.push_back({run.first_id, run.n_keys});
      }
    }
    if (head == 0) {
      runs = std::move(head_runs);
    } else if (head_runs != runs) {
      return absl::InvalidArgumentError(
          StrCat("index build: head ", head, " has other ids than head 0"));
    }
  }
  KeyIds ids(std::move(runs));
  // Positions are counted in 32 bits, here and by FAISS's HNSW.
  if (ids.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        StrCat("index build: ", ids.size(), " keys, want at most 2^31 - 1 in one index"));
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<LayerIndex>> LayerIndex::Build(compute::Device& device,
                                                              const std::string& spec,
                                                              const std::vector<HeadKeys>& keys,
                                                              int64_t head_dim,
                                                              const Progress& progress) {
  if (keys.empty() || head_dim < 1) {
    return absl::InvalidArgumentError(StrCat("index build: ", keys.size(), " heads of ", head_dim,
                                             ", want at least one of each"));
  }
  if (CodeBits(spec) == 0) return BuildFaissIndex(device, spec, keys, head_dim, progress);
  ASSIGN_OR_RETURN(const std::optional<DeviceKeys> copied,
                   DeviceKeys::Copy(device, keys, head_dim));
  return BuildCodedIndex(device, spec, keys, copied ? &*copied : nullptr, head_dim, progress);
}

absl::StatusOr<std::unique_ptr<LayerIndex>> LayerIndex::Load(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(IndexFile file, ReadIndexFile(path));
  const Effort effort{file.trailer.n_probe, file.trailer.n_candidates};
  ASSIGN_OR_RETURN(std::unique_ptr<LayerIndex> index, CodeBits(file.trailer.spec) > 0
                                                          ? LoadCodedIndex(path, std::move(file))
                                                          : LoadFaissIndex(path, std::move(file)));
  index->set_effort(effort);
  return index;
}

absl::StatusOr<std::unique_ptr<DeviceIndex>> LayerIndex::CopyTo(compute::Device&) const {
  return absl::UnimplementedError(
      StrCat("index \"", spec(), "\": no device searches it by itself"));
}

absl::Status ValidateSpec(const std::string& spec, int64_t head_dim) {
  if (spec == "auto" || spec == "exact") return absl::OkStatus();
  return CodeBits(spec) > 0 ? ValidateCodedSpec(spec, head_dim) : ValidateFaissSpec(spec, head_dim);
}

}  // namespace fovea::index
