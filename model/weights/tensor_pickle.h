// The pickle in a PyTorch weight file, read as data. Nothing in it is ever executed: a small stack
// machine knows the opcodes and the few names that a dictionary of tensors is made of, and refuses
// everything else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "compute/dtype.h"

namespace fovea::model {

// A tensor as the pickle describes it: a view of a storage, which is a record of the archive.
struct PickledTensor {
  std::string name;
  compute::DType dtype = compute::DType::kF32;
  std::string storage;           // key of the record, "0"
  int64_t storage_values = 0;    // as the pickle says; the record has the last word
  int64_t offset_values = 0;     // of the first value in the storage
  std::vector<int64_t> shape;    // not negative
  std::vector<int64_t> strides;  // in values; as many as the shape has dimensions
};

// The tensors of a pickled dictionary (dict or OrderedDict) of names and tensors: protocol 2, with
// collections.OrderedDict, torch._utils._rebuild_tensor_v2 and torch.{Float,Half,BFloat16}Storage.
// InvalidArgument for damage, with the byte; PermissionDenied names any other global that the
// pickle would have called; Unimplemented names an opcode, protocol or type. Time and memory are
// linear in the size of `bytes`.
absl::StatusOr<std::vector<PickledTensor>> ReadTensorPickle(std::string_view bytes);

}  // namespace fovea::model
