// How ops check their views, before anything is computed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "base/status.h"
#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

// Types that an argument may have.
using DTypeSet = uint32_t;
constexpr DTypeSet OfType(DType dtype) { return DTypeSet{1} << static_cast<int>(dtype); }
inline constexpr DTypeSet kFloat32 = OfType(DType::kF32);
inline constexpr DTypeSet kFloat32OrBFloat16 = kFloat32 | OfType(DType::kBF16);
inline constexpr DTypeSet kAnyType = ~DTypeSet{0};

enum class Layout {
  kContiguous,  // without gaps
  kDenseRows,   // elements of the last dimension beside one another, the rest as it comes
};

enum class Place {
  kOwn,       // the device's memory
  kReadable,  // that, or pinned host memory (Device::AllocatePinned)
};

// A dimension that may have any size.
inline constexpr int64_t kAnySize = -1;

// InvalidArgument, naming the op, the argument, what is wanted and what it is, where `view` has
// another type, shape or layout, has elements but no address, or lies in another
// place, as far as the device can tell.
absl::Status CheckArgument(const Device& device, std::string_view op, std::string_view argument,
                           const ConstView& view, DTypeSet types,
                           std::initializer_list<int64_t> shape,
                           Layout layout = Layout::kContiguous, Place place = Place::kOwn);

// InvalidArgument unless `begins` ([n_sequences + 1]) goes from 0 to n_rows and never down.
absl::Status CheckSequences(std::string_view op, std::span<const int64_t> begins, int64_t n_rows);

}  // namespace fovea::compute
