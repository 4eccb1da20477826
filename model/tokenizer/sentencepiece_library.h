// libsentencepiece behind a header without its types: it declares an absl::string_view of its own,
// so no source may include both it and Abseil.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::model {

// Immutable and thread-safe.
class SentencePieceLibrary {
 public:
  // Null, with the library's words in `error`, when it refuses the model.
  static std::unique_ptr<SentencePieceLibrary> Load(const std::string& serialized,
                                                    std::string* error);
  ~SentencePieceLibrary();

  // Appends the pieces' ids and where they end in `text` (valid UTF-8), in bytes. Of the byte
  // pieces of one character the last has its end, the others its beginning.
  // False when the library fails; the outputs are then as they were.
  bool Encode(std::string_view text, std::vector<int32_t>* ids, std::vector<uint32_t>* ends) const;

 private:
  struct Impl;
  explicit SentencePieceLibrary(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fovea::model
