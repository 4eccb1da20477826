// A tensor as a file stores it, before it is known to belong to a model.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "compute/dtype.h"

namespace fovea::model {

struct StoredTensor {
  std::string name;  // UTF-8
  compute::DType dtype = compute::DType::kF32;
  std::vector<int64_t> shape;       // row-major, outermost first
  const std::byte* data = nullptr;  // unaligned; borrowed from the file
  size_t size_bytes = 0;
};

using TensorTable = std::map<std::string_view, const StoredTensor*>;  // by name

}  // namespace fovea::model
