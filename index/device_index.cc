#include "index/device_index.h"

#include "compute/buffer.h"

namespace fovea::index {

absl::Status SearchOnDevice(compute::Device& device, const DeviceIndex& index, int64_t n_kv_heads,
                            int64_t head_dim, const LayerSearchArgs& args,
                            std::vector<int64_t>* candidates) {
  if (args.filter.bits != nullptr || args.n_heads < 1 || args.n_heads % n_kv_heads != 0 ||
      args.n_candidates < 1 || args.n_candidates > kMaxDeviceCandidates) {
    return absl::InvalidArgumentError(StrCat("index search on a GPU: ", args.n_heads, " heads, ",
                                             args.n_candidates, " candidates, want a multiple of ",
                                             n_kv_heads, " heads, 1 … ", kMaxDeviceCandidates,
                                             " candidates, and no filter"));
  }
  const int64_t group = args.n_heads / n_kv_heads;
  const int64_t n_rows = args.n_queries * args.n_heads;
  const int64_t k = args.n_candidates;
  candidates->assign(static_cast<size_t>(n_rows * k), -1);
  if (n_rows == 0 || index.ids().size() == 0) return absl::OkStatus();
  const size_t query_bytes = static_cast<size_t>(n_rows * head_dim) * sizeof(float);
  std::vector<int64_t> keys(candidates->size());
  ASSIGN_OR_RETURN(const compute::Buffer queries, device.Allocate(query_bytes));
  ASSIGN_OR_RETURN(const compute::Buffer found, device.Allocate(keys.size() * sizeof(int64_t)));
  RETURN_IF_ERROR(device.CopyFromHost(args.queries, query_bytes, queries.data<void>()));
  RETURN_IF_ERROR(index.Search(device, {.queries = queries.data<float>(),
                                        .n_queries = args.n_queries,
                                        .n_heads = args.n_heads,
                                        .n_candidates = args.n_candidates,
                                        .n_probe = args.n_probe,
                                        .keys = found.data<int64_t>()}));
  RETURN_IF_ERROR(device.CopyToHost(found.data<void>(), found.size_bytes(), keys.data()));
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t query = row / args.n_heads;
    const int64_t head = row % args.n_heads;
    const int64_t list = (head / group * args.n_queries + query) * group + head % group;
    int64_t* out = candidates->data() + row * k;
    for (int64_t j = 0; j < k; ++j) {
      const int64_t key = keys[static_cast<size_t>(list * k + j)];
      if (key >= 0 && key < index.ids().size()) *out++ = index.ids().At(key);
    }
  }
  return absl::OkStatus();
}

}  // namespace fovea::index
