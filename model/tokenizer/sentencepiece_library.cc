#include "model/tokenizer/sentencepiece_library.h"

#include <sentencepiece_processor.h>

#include <utility>

namespace fovea::model {

struct SentencePieceLibrary::Impl {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceLibrary::SentencePieceLibrary(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SentencePieceLibrary::~SentencePieceLibrary() = default;

std::unique_ptr<SentencePieceLibrary> SentencePieceLibrary::Load(const std::string& serialized,
                                                                 std::string* error) {
  auto impl = std::make_unique<Impl>();
  const sentencepiece::util::Status status = impl->processor.LoadFromSerializedProto(serialized);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  return std::unique_ptr<SentencePieceLibrary>(new SentencePieceLibrary(std::move(impl)));
}

bool SentencePieceLibrary::Encode(std::string_view text, std::vector<int32_t>* ids,
                                  std::vector<uint32_t>* ends) const {
  sentencepiece::ImmutableSentencePieceText result;
  if (!impl_->processor.Encode(text, result.mutable_proto()).ok()) return false;
  const size_t n_pieces = result.pieces_size();
  ids->reserve(ids->size() + n_pieces);
  ends->reserve(ends->size() + n_pieces);
  for (size_t i = 0; i < n_pieces; ++i) {
    const auto piece = result.pieces(static_cast<int>(i));
    ids->push_back(static_cast<int32_t>(piece.id()));
    ends->push_back(piece.end());
  }
  return true;
}

}  // namespace fovea::model
