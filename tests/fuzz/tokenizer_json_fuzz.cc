// tokenizer.json, and (after NUL bytes) tokenizer_config.json and generation_config.json beside it.
#include "check_tokenizer.h"
#include "model/weights/hugging_face_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  std::string_view rest = fovea::fuzz::AsView(data, size);
  folder.Write("tokenizer.json", fovea::fuzz::TakePart(&rest));
  folder.Write("tokenizer_config.json", fovea::fuzz::TakePart(&rest));
  folder.Write("generation_config.json", rest);
  fovea::model::HuggingFaceConfig config;
  config.model.vocab_size = 300;
  const auto spec = fovea::model::ReadHuggingFaceTokenizer(folder.path(), config);
  fovea::fuzz::CheckMessage(spec.status());
  if (spec.ok()) fovea::fuzz::CheckTokenizer(*spec);
  return 0;
}
