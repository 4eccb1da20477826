#include "model/tokenizer/sentencepiece_tokenizer.h"

namespace fovea::model {

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSentencePieceTokenizer(const TokenizerSpec&) {
  return absl::UnimplementedError("SentencePiece vocabularies are not read yet");
}

}  // namespace fovea::model
