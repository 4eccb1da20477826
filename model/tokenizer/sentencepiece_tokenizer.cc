#include "model/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "model/tokenizer/safe_cuts.h"
#include "model/tokenizer/sentencepiece_library.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/utf8.h"
#include "model/tokenizer/vocabulary.h"

namespace fovea::model {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// The library keeps some hundred bytes a piece until a text is done, so a long one goes to it in
// parts of about this size.
constexpr size_t kPartBytes = 64 << 10;

std::optional<unsigned char> ByteOf(std::string_view piece) {
  // "<0x0A>"
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  unsigned char byte = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
  if (error != std::errc() || end != piece.data() + 5) return std::nullopt;
  return byte;
}

std::string WithSpaces(std::string_view piece) {
  std::string text;
  text.reserve(piece.size());
  while (!piece.empty()) {
    if (piece.starts_with(kSpaceMark)) {
      text.push_back(' ');
      piece.remove_prefix(kSpaceMark.size());
    } else {
      text.push_back(piece[0]);
      piece.remove_prefix(1);
    }
  }
  return text;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<Vocabulary> vocabulary, const SentencePieceModel& model,
                         std::unique_ptr<SentencePieceLibrary> library, bool is_plain)
      : vocabulary_(std::move(vocabulary)),
        library_(std::move(library)),
        n_pieces_(static_cast<int32_t>(model.pieces.size())),
        is_plain_(is_plain),
        // Without byte fallback neighbouring unknown characters become one token: no cut is safe.
        can_cut_(is_plain && model.byte_fallback),
        user_tokens_(*vocabulary_, [this](int32_t id) { return IsSplitOff(id); }),
        all_tokens_(*vocabulary_,
                    [this](int32_t id) { return IsSplitOff(id) || vocabulary_->IsSpecial(id); }) {
    const TokenizerSpec& spec = vocabulary_->spec();
    std::fill(std::begin(byte_ids_), std::end(byte_ids_), vocabulary_->unknown_id());
    bytes_.resize(vocabulary_->size());
    for (int32_t id = 0; id < vocabulary_->size(); ++id) {
      const std::string& token = spec.tokens[id];
      if (spec.types[id] == TokenType::kUnknown) {
        bytes_[id] = model.unknown_surface;
      } else if (vocabulary_->IsSpecial(id)) {
        continue;
      } else if (spec.types[id] == TokenType::kByte) {
        if (const std::optional<unsigned char> byte = ByteOf(token)) {
          bytes_[id] = std::string(1, static_cast<char>(*byte));
          byte_ids_[*byte] = id;
        }
      } else if (id >= n_pieces_) {
        bytes_[id] = token;
      } else {
        bytes_[id] = WithSpaces(token);
        if (can_cut_) cuts_.AddPiece(token);
      }
    }
  }

  Encoding Encode(std::string_view text, bool parse_special) const override {
    FOVEA_CHECK(text.size() <= std::numeric_limits<uint32_t>::max());
    Encoding encoding;
    const AddedTokens& added = parse_special ? all_tokens_ : user_tokens_;
    added.Split(text, [&](std::string_view piece, int32_t id) {
      const auto offset = static_cast<uint32_t>(piece.data() - text.data());
      if (id >= 0) {
        encoding.ids.push_back(id);
        encoding.ends.push_back(offset + static_cast<uint32_t>(piece.size()));
      } else {
        EncodeText(piece, offset, &encoding);
      }
    });
    // Spaces that a normalizer removed, and bytes that no token stands for, may end the text.
    if (!encoding.ends.empty()) encoding.ends.back() = static_cast<uint32_t>(text.size());
    return encoding;
  }

  std::string Decode(std::span<const int32_t> ids, bool show_special) const override {
    std::string text;
    bool is_first = true;
    for (const int32_t id : ids) {
      if (!vocabulary_->Contains(id)) continue;
      if (bytes_[id].empty()) {
        if (show_special) text += vocabulary_->spec().tokens[id];
        continue;
      }
      std::string_view bytes = bytes_[id];
      const TokenizerSpec& spec = vocabulary_->spec();
      if (is_first && spec.add_space_prefix && spec.tokens[id].starts_with(kSpaceMark)) {
        bytes.remove_prefix(1);
      }
      is_first = false;
      text += bytes;
    }
    return text;
  }

  std::string TokenBytes(int32_t id) const override {
    return vocabulary_->Contains(id) ? bytes_[id] : std::string();
  }

  int64_t vocab_size() const override { return vocabulary_->size(); }
  int32_t TokenId(std::string_view token) const override { return vocabulary_->Find(token); }
  bool IsEnd(int32_t id) const override { return vocabulary_->IsEnd(id); }
  const TokenizerSpec& spec() const override { return vocabulary_->spec(); }

 private:
  // The library finds the user-defined pieces of its own model.
  bool IsSplitOff(int32_t id) const { return id >= n_pieces_ && vocabulary_->IsUserDefined(id); }

  // `text` is a text of its own: it begins with the dummy prefix.
  void EncodeText(std::string_view text, uint32_t offset, Encoding* encoding) const {
    bool needs_prefix = is_plain_ && vocabulary_->spec().add_space_prefix;
    while (!text.empty()) {
      // The library writes U+FFFD for invalid bytes; here they keep their values.
      std::string_view valid = text.substr(0, ValidUtf8Prefix(text));
      text.remove_prefix(valid.size());
      while (!valid.empty()) {
        const std::string_view part =
            valid.substr(0, can_cut_ ? cuts_.Next(valid, kPartBytes) : valid.size());
        EncodePart(part, offset, needs_prefix, encoding);
        needs_prefix = false;
        offset += static_cast<uint32_t>(part.size());
        valid.remove_prefix(part.size());
      }
      if (text.empty()) break;
      if (needs_prefix) EncodePart("", offset, needs_prefix, encoding);
      needs_prefix = false;
      EncodeBytes(text.substr(0, 1), offset, encoding);
      ++offset;
      text.remove_prefix(1);
    }
  }

  void EncodeBytes(std::string_view bytes, uint32_t offset, Encoding* encoding) const {
    for (const char byte : bytes) {
      ++offset;
      const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id < 0) continue;
      encoding->ids.push_back(id);
      encoding->ends.push_back(offset);
    }
  }

  void EncodePart(std::string_view part, uint32_t offset, bool has_prefix,
                  Encoding* encoding) const {
    const std::string_view unprefixed = part;
    std::string prefixed;
    uint32_t prefix_bytes = 0;
    if (has_prefix) {
      prefixed = StrCat(kSpaceMark, part);
      part = prefixed;
      prefix_bytes = static_cast<uint32_t>(kSpaceMark.size());
    }
    const size_t first = encoding->ids.size();
    // It fails where a damaged character map makes something of a part that is not UTF-8.
    if (!library_->Encode(part, &encoding->ids, &encoding->ends)) {
      return EncodeBytes(unprefixed, offset, encoding);
    }
    size_t kept = first;
    for (size_t i = first; i < encoding->ids.size(); ++i) {
      // The unknown piece that was added for the library is no token.
      if (encoding->ids[i] >= n_pieces_) continue;
      encoding->ids[kept] = encoding->ids[i];
      const uint32_t end = encoding->ends[i];
      encoding->ends[kept] = offset + (end > prefix_bytes ? end - prefix_bytes : 0);
      ++kept;
    }
    encoding->ids.resize(kept);
    encoding->ends.resize(kept);
    // Of the byte pieces of a character the library gives all but the last an empty text.
    for (size_t i = kept; i-- > first + 1;) {
      const size_t previous = i - 1;
      const uint32_t begin = previous == first ? offset : encoding->ends[previous - 1];
      if (encoding->ends[previous] == begin &&
          vocabulary_->spec().types[encoding->ids[previous]] == TokenType::kByte) {
        encoding->ends[previous] = encoding->ends[i];
      }
    }
  }

  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<SentencePieceLibrary> library_;
  const int32_t n_pieces_;  // of the model; added tokens come after them
  // The normalizer only writes spaces as U+2581; the dummy prefix is then put in front here, so
  // that the second part of a text can go without.
  const bool is_plain_;
  const bool can_cut_;
  AddedTokens user_tokens_;
  AddedTokens all_tokens_;
  SafeCuts cuts_;
  std::vector<std::string> bytes_;  // by id; empty for special tokens
  int32_t byte_ids_[256];           // the unknown token's where there is no byte piece
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSentencePieceTokenizer(const TokenizerSpec& spec) {
  const bool is_serialized = !spec.sentencepiece_model.empty();
  ASSIGN_OR_RETURN(SentencePieceModel model,
                   is_serialized ? SentencePieceModel::Parse(spec.sentencepiece_model)
                                 : SentencePieceModel::FromSpec(spec));
  if (model.treat_whitespace_as_suffix) {
    return absl::UnimplementedError(
        "tokenizer.model: treat_whitespace_as_suffix: only models with spaces in front of words "
        "are read");
  }

  // The model is right about its own pieces; the specification may have more tokens after them.
  TokenizerSpec kept = spec;
  kept.sentencepiece_model.clear();
  const size_t n_pieces = model.pieces.size();
  if (is_serialized) {
    if (kept.types.size() != kept.tokens.size()) {
      return absl::InvalidArgumentError(
          StrCat("tokenizer: ", kept.types.size(), " token types, want ", kept.tokens.size()));
    }
    const size_t n_tokens = std::max(n_pieces, kept.tokens.size());
    kept.tokens.resize(n_tokens);
    kept.types.resize(n_tokens);
    kept.scores.resize(n_tokens);
    for (size_t id = 0; id < n_pieces; ++id) {
      const SentencePieceModel::Piece& piece = model.pieces[id];
      kept.tokens[id] = piece.text;
      kept.types[id] = piece.type;
      kept.scores[id] = piece.score;
      if (piece.type != TokenType::kControl) continue;
      if (kept.bos_id < 0 && piece.text == "<s>") kept.bos_id = static_cast<int32_t>(id);
      if (kept.eos_id < 0 && piece.text == "</s>") kept.eos_id = static_cast<int32_t>(id);
    }
    kept.add_space_prefix = model.add_dummy_prefix;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Vocabulary> vocabulary, Vocabulary::Create(std::move(kept)));

  // What is special to us must not come out of plain text: the library keeps control pieces apart.
  for (size_t id = 0; id < n_pieces; ++id) {
    TokenType& type = model.pieces[id].type;
    if (vocabulary->IsSpecial(static_cast<int32_t>(id)) && type != TokenType::kUnknown) {
      type = TokenType::kControl;
    }
  }
  const bool is_plain =
      !model.remove_extra_whitespaces && !model.has_character_map && model.escape_whitespaces;
  SentencePieceModel for_library = model;
  if (is_plain) for_library.add_dummy_prefix = false;
  std::string error;
  std::unique_ptr<SentencePieceLibrary> library =
      SentencePieceLibrary::Load(for_library.Serialize(), &error);
  if (library == nullptr) {
    return absl::InvalidArgumentError(StrCat("tokenizer: SentencePiece refuses the vocabulary of ",
                                             n_pieces, " pieces: ", error));
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(vocabulary), model, std::move(library),
                                                  is_plain);
}

}  // namespace fovea::model
