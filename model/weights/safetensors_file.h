// The container format safetensors: a JSON header that names tensors, and their bytes. Knows
// nothing of architectures; every length and offset in the file is distrusted.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/weights/tensor_file.h"

namespace fovea::model {

// A tensor of whole numbers: ids in a fixture. Models have none.
struct StoredIntegers {
  std::string name;
  std::vector<int64_t> shape;
  int bytes_per_value = 0;          // 4 or 8, signed
  const std::byte* data = nullptr;  // unaligned; borrowed from the file

  int64_t Value(int64_t i) const;
};

enum class IntegerTensors { kRefuse, kRead };

class SafetensorsFile final : public TensorFile {
 public:
  // NotFound; InvalidArgument names the file and says where it is damaged; Unimplemented names a
  // tensor and its element type. Messages begin with the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::filesystem::path& path, IntegerTensors integers = IntegerTensors::kRefuse);

  // I32 and I64 ones, where they were asked for.
  const std::vector<StoredIntegers>& integers() const { return integers_; }

 private:
  absl::Status Parse(IntegerTensors integers);
  std::vector<StoredIntegers> integers_;
};

}  // namespace fovea::model
