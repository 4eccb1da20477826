// Checks that every reader of weight files makes on what a file claims, before it believes it:
// sizes that do not overflow, extents inside the file that do not overlap, text that is UTF-8.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "compute/dtype.h"

namespace fovea::model {

bool IsUtf8(std::string_view text);

// Text out of a file, fit for a message: escaped, and cut after some 100 bytes.
std::string Printable(std::string_view text);

// "[8,4096]".
std::string ShapeString(std::span<const int64_t> shape);

// Bytes of a dense tensor; a shape of no dimensions is a scalar. InvalidArgument when a dimension
// is negative, the rows are no whole number of blocks, or the size does not fit in 63 bits.
absl::StatusOr<size_t> TensorBytes(compute::DType dtype, std::span<const int64_t> shape);

// Where a tensor's bytes lie in the data part of a file.
struct TensorExtent {
  std::string_view name;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

// For a file of `file_size_bytes` whose data part starts at `data_offset`. InvalidArgument names
// the tensor that ends behind the file, with the expected and the actual size, or two that overlap.
absl::Status CheckExtents(std::vector<TensorExtent> extents, uint64_t data_offset,
                          uint64_t file_size_bytes);

}  // namespace fovea::model
