// The exactly best keys of queries, by whichever scan suits the device: what an index is judged by.
#pragma once

#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "compute/key_scan.h"
#include "compute/view.h"
#include "index/device_keys.h"
#include "index/layer_index.h"

namespace fovea::index {

// queries = [n_queries, n_heads, head_dim], float32, in host memory; n_heads is a multiple of the
// heads of `keys`, which have the same ids. [n_queries, n_heads, n_best], best first, with an id
// of −1 where there are fewer keys. `copied`: the keys on the device, which scans them then; its
// scores differ from the host's in the order of their sums. Null: the host does.
absl::StatusOr<std::vector<compute::ScoredId>> FindBestKeys(compute::Device& device,
                                                            const std::vector<HeadKeys>& keys,
                                                            const DeviceKeys* copied,
                                                            const compute::ConstView& queries,
                                                            int n_best);

}  // namespace fovea::index
