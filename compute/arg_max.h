// The place of the largest of some numbers, which stays on the device: greedy decoding.
#pragma once

#include <cstdint>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct ArgMaxArgs {
  ConstView x;             // [n], float32, n ≥ 1
  int32_t* out = nullptr;  // in the device's memory: of equal ones the smallest; NaN is the least
};
// InvalidArgument for a view of another type or shape.
absl::Status ArgMax(Device& device, const ArgMaxArgs& args);

}  // namespace fovea::compute
