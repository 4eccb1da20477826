// PyTorch weight files: the zip directory, the pickle, and the tensors that it describes.
#include "fuzz_input.h"
#include "model/weights/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  const auto path = folder.Write("pytorch_model.bin", fovea::fuzz::AsView(data, size));
  const auto file = fovea::model::TorchFile::Open(path);
  fovea::fuzz::CheckMessage(file.status());
  if (!file.ok()) return 0;
  unsigned sum = 0;
  for (const fovea::model::StoredTensor& tensor : (*file)->tensors()) {
    if (tensor.size_bytes == 0) continue;
    // Both ends lie in the file.
    sum += static_cast<unsigned>(tensor.data[0]) +
           static_cast<unsigned>(tensor.data[tensor.size_bytes - 1]);
    fovea::fuzz::Require((*file)->Contains(tensor.name), "a tensor is found by its name");
  }
  fovea::fuzz::Require(sum < ~0u, "never");
  return 0;
}
