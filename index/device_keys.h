// The keys of a memory layer where a device reads them, while an index over them is built.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "compute/buffer.h"
#include "compute/device.h"
#include "compute/view.h"
#include "index/layer_index.h"

namespace fovea::index {

class DeviceKeys {
 public:
  // Copies `keys`, runs of every head with the same ids and one type, to memory of the device.
  // Nothing where that is not to be had: they do not fit, there are none, or the device reads them
  // where they are.
  static absl::StatusOr<std::optional<DeviceKeys>> Copy(compute::Device& device,
                                                        const std::vector<HeadKeys>& keys,
                                                        int64_t head_dim);
  // [n_kv_heads, n_keys, head_dim], by ascending id.
  const compute::ConstView& view() const { return view_; }

 private:
  DeviceKeys(compute::Buffer buffer, const compute::ConstView& view)
      : buffer_(std::move(buffer)), view_(view) {}
  compute::Buffer buffer_;
  compute::ConstView view_;
};

}  // namespace fovea::index
