// The tokenizer of a model folder: tokenizer.json (byte-level BPE, or SentencePiece converted to
// BPE), tokenizer.model (SentencePiece), tokenizer_config.json, chat_template.jinja and
// generation_config.json.
#pragma once

#include <filesystem>

#include "base/status.h"
#include "model/tokenizer/tokenizer_spec.h"
#include "model/weights/hugging_face_config.h"

namespace fovea::model {

// A spec of kind kNone where the folder has no tokenizer. InvalidArgument for damaged files,
// Unimplemented names a kind of tokenizer, or a part of one, that fovea does not know. Messages
// begin with the path of the file.
absl::StatusOr<TokenizerSpec> ReadHuggingFaceTokenizer(const std::filesystem::path& folder,
                                                       const HuggingFaceConfig& config);

}  // namespace fovea::model
