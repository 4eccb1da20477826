// Writes what torch.save writes, right or wrong: nothing is checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "file_writers.h"
#include "tests/base/make_zip.h"

namespace fovea::model {

inline std::string PickledText(std::string_view text) {
  return "X" + Bytes<uint32_t>(static_cast<uint32_t>(text.size())) + std::string(text);
}
inline std::string PickledNumber(int64_t n) {
  const bool is_short = n >= INT32_MIN && n <= INT32_MAX;
  return is_short ? "J" + Bytes(static_cast<int32_t>(n)) : std::string("\x8a\x08") + Bytes(n);
}
inline std::string PickledNumbers(const std::vector<int64_t>& numbers) {
  std::string tuple = "(";
  for (const int64_t n : numbers) tuple += PickledNumber(n);
  return tuple + "t";
}
inline std::string PickledGlobal(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

struct TorchTensor {
  std::string name;
  std::vector<int64_t> shape, strides;
  std::string storage = "0";  // the record data/0
  int64_t storage_values = 0;
  int64_t offset = 0;  // in values
  std::string type = "FloatStorage";
};

// An OrderedDict with attributes, as the state of a module is.
inline std::string TorchPickleOf(const std::vector<TorchTensor>& tensors) {
  std::string pickle = "\x80\x02" + PickledGlobal("collections", "OrderedDict") + ")Rq";
  pickle += '\0';
  pickle += "(";
  for (const TorchTensor& t : tensors) {
    pickle += PickledText(t.name) + PickledGlobal("torch._utils", "_rebuild_tensor_v2") + "((" +
              PickledText("storage") + PickledGlobal("torch", t.type) + PickledText(t.storage) +
              PickledText("cpu") + PickledNumber(t.storage_values) + "tQ" +
              PickledNumber(t.offset) + PickledNumbers(t.shape) + PickledNumbers(t.strides) +
              "\x89" + PickledGlobal("collections", "OrderedDict") + ")R" + "tR";
  }
  return pickle + "u}" + PickledText("_metadata") + "}sb.";
}

// A right file of F32 tensors, a record each.
inline std::string TorchFileOf(const std::vector<NamedTensor>& tensors) {
  std::vector<TorchTensor> pickled;
  std::vector<ZipFile> entries = {{"m/data.pkl", ""}};
  for (const NamedTensor& tensor : tensors) {
    std::vector<int64_t> strides(tensor.shape.size(), 1);
    for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * tensor.shape[i];
    const std::string record = std::to_string(pickled.size());
    pickled.push_back(
        {tensor.name, tensor.shape, strides, record, static_cast<int64_t>(tensor.values.size())});
    entries.push_back({"m/data/" + record, FloatBytes(tensor.values)});
  }
  entries[0].bytes = TorchPickleOf(pickled);
  return MakeZip(entries);
}

}  // namespace fovea::model
