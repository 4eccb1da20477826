// What an op says on a device for which this build holds no implementation of it.
#pragma once

#include <string_view>

#include "base/status.h"

namespace fovea::compute {

inline absl::Status Unavailable(std::string_view op) {
  return absl::UnimplementedError(StrCat(op, ": this build has no CUDA part; use device 'cpu'"));
}

}  // namespace fovea::compute
