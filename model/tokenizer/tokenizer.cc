#include "model/tokenizer/tokenizer.h"

#include "model/tokenizer/bpe_tokenizer.h"
#include "model/tokenizer/sentencepiece_tokenizer.h"

namespace fovea::model {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const TokenizerSpec& spec) {
  switch (spec.kind) {
    case TokenizerSpec::Kind::kByteLevelBpe:
      return CreateBpeTokenizer(spec);
    case TokenizerSpec::Kind::kSentencePiece:
      return CreateSentencePieceTokenizer(spec);
    case TokenizerSpec::Kind::kNone:
      break;
  }
  return absl::FailedPreconditionError(
      "the checkpoint has no tokenizer: want a GGUF file with its vocabulary, or tokenizer.json or "
      "tokenizer.model beside the weights");
}

}  // namespace fovea::model
