#include "memory/ingest/text_identity.h"

#include "base/hash.h"

namespace fovea::memory {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kIdDigits = 32;

}  // namespace

absl::StatusOr<TextIdentity> IdentifyText(documents::TextDocument& document,
                                          const Progress& progress) {
  RETURN_IF_ERROR(document.Rewind());
  Sha256 hasher;
  uint64_t size_bytes = 0;
  std::string piece;
  while (true) {
    piece.clear();
    RETURN_IF_ERROR(document.Read(kReadBytes, &piece));
    if (piece.empty()) break;
    hasher.Update(piece);
    size_bytes += piece.size();
    RETURN_IF_ERROR(progress.CheckCancelled());
  }
  if (size_bytes == 0) {
    return absl::InvalidArgumentError(StrCat(document.source, ": empty: nothing to store"));
  }
  return TextIdentity{hasher.FinishHex().substr(0, kIdDigits), size_bytes};
}

}  // namespace fovea::memory
