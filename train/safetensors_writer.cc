#include "train/safetensors_writer.h"

#include "base/file.h"

namespace fovea::train {

void SafetensorsWriter::Add(const std::string& name, const torch::Tensor& tensor,
                            torch::Dtype type) {
  const torch::Tensor values = tensor.detach().to(torch::kCPU, type).contiguous();
  const size_t begin = bytes_.size();
  bytes_.append(static_cast<const char*>(values.data_ptr()), values.nbytes());
  header_[name] = {{"dtype", type == torch::kBFloat16 ? "BF16" : "F32"},
                   {"shape", values.sizes().vec()},
                   {"data_offsets", {begin, bytes_.size()}}};
}

absl::Status SafetensorsWriter::Write(const std::filesystem::path& path) const {
  std::string text = header_.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t n_bytes = text.size();
  return WriteFileAtomic(
      path, std::string(reinterpret_cast<const char*>(&n_bytes), sizeof n_bytes) + text + bytes_);
}

}  // namespace fovea::train
