// GGUF files: the container, the configuration and the tokenizer in it.
#include "fuzz_input.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights/checkpoint.h"
#include "model/weights/gguf_file.h"

namespace fovea::model {
namespace {

void CheckContainer(std::string_view bytes) {
  const absl::StatusOr<GgufFile> file = GgufFile::Parse(bytes);
  fuzz::CheckMessage(file.status());
  if (!file.ok()) return;
  unsigned sum = 0;
  for (const StoredTensor& tensor : file->tensors()) {
    if (tensor.size_bytes == 0) continue;
    // Both ends lie in the file; a sanitizer sees where they do not.
    sum += static_cast<unsigned>(tensor.data[0]) +
           static_cast<unsigned>(tensor.data[tensor.size_bytes - 1]);
  }
  for (const char* key : {"general.architecture", "tokenizer.ggml.tokens", "llama.block_count",
                          "tokenizer.ggml.scores", "llama.rope.freq_base"}) {
    if (!file->Has(key)) continue;
    fuzz::CheckMessage(file->String(key).status());
    fuzz::CheckMessage(file->Strings(key).status());
    fuzz::CheckMessage(file->Integer(key).status());
    fuzz::CheckMessage(file->Integers(key).status());
    fuzz::CheckMessage(file->Number(key).status());
    fuzz::CheckMessage(file->Numbers(key).status());
    fuzz::CheckMessage(file->Bool(key).status());
  }
  fuzz::Require(sum < ~0u, "never");
}

}  // namespace
}  // namespace fovea::model

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  const std::string_view bytes = fovea::fuzz::AsView(data, size);
  fovea::model::CheckContainer(bytes);
  const auto checkpoint = fovea::model::Checkpoint::Open(folder.Write("model.gguf", bytes));
  fovea::fuzz::CheckMessage(checkpoint.status());
  if (!checkpoint.ok()) return 0;
  const auto tokenizer = fovea::model::Tokenizer::Create((*checkpoint)->tokenizer_spec());
  fovea::fuzz::CheckMessage(tokenizer.status());
  return 0;
}
