// tokenizer.model: SentencePiece's protocol buffer.
#include "check_tokenizer.h"
#include "model/tokenizer/sentencepiece_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using fovea::model::SentencePieceModel;
  const std::string_view bytes = fovea::fuzz::AsView(data, size);
  const absl::StatusOr<SentencePieceModel> model = SentencePieceModel::Parse(bytes);
  fovea::fuzz::CheckMessage(model.status());
  if (!model.ok()) return 0;
  const absl::StatusOr<SentencePieceModel> again = SentencePieceModel::Parse(model->Serialize());
  fovea::fuzz::Require(again.ok(), "what was written can be read");
  fovea::fuzz::Require(again->pieces.size() >= model->pieces.size(), "no piece is lost");
  fovea::model::TokenizerSpec spec;
  spec.kind = fovea::model::TokenizerSpec::Kind::kSentencePiece;
  spec.sentencepiece_model = std::string(bytes);
  fovea::fuzz::CheckTokenizer(spec);
  return 0;
}
