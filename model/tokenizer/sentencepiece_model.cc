#include "model/tokenizer/sentencepiece_model.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "model/tokenizer/character_map.h"

namespace fovea::model {
namespace {

// Field numbers of sentencepiece_model.proto.
enum ModelField : uint32_t {
  kPieces = 1,
  kTrainer = 2,
  kNormalizer = 3,
  kSelfTest = 4,
  kDenormalizer = 5,  // a normalizer, of decoded text
};
enum PieceField : uint32_t { kText = 1, kScore = 2, kType = 3 };
enum TrainerField : uint32_t {
  kModelType = 3,
  kWhitespaceAsSuffix = 24,
  kByteFallback = 35,
  kUnknownSurface = 44,
};
enum NormalizerField : uint32_t {
  kName = 1,
  kCharacterMap = 2,
  kDummyPrefix = 3,
  kRemoveWhitespaces = 4,
  kEscapeWhitespaces = 5,
};
constexpr uint64_t kBpe = 2;  // TrainerSpec.ModelType

// Wire types of protocol buffers.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  WireType type = kVarint;
  uint64_t value = 0;      // kVarint, kFixed32, kFixed64
  std::string_view bytes;  // kBytes
  std::string_view raw;    // the whole field, with its tag
};

// Takes the fields of a message one by one. False at the end of the message or at a malformed
// field; ok() tells which.
class MessageReader {
 public:
  explicit MessageReader(std::string_view message) : rest_(message) {}

  bool Next(Field* field) {
    if (!ok_ || rest_.empty()) return false;
    const std::string_view begin = rest_;
    ok_ = Read(field);
    field->raw = begin.substr(0, begin.size() - rest_.size());
    return ok_;
  }
  bool ok() const { return ok_; }

 private:
  bool Read(Field* field) {
    uint64_t tag = 0;
    if (!ReadVarint(&tag) || (tag >> 3) == 0 || (tag >> 3) > (1u << 29) - 1) return false;
    field->number = static_cast<uint32_t>(tag >> 3);
    field->bytes = {};
    switch (tag & 7) {
      case kVarint:
        field->type = kVarint;
        return ReadVarint(&field->value);
      case kFixed64:
        field->type = kFixed64;
        return ReadFixed(8, &field->value);
      case kFixed32:
        field->type = kFixed32;
        return ReadFixed(4, &field->value);
      case kBytes: {
        field->type = kBytes;
        uint64_t size = 0;
        if (!ReadVarint(&size) || size > rest_.size()) return false;
        field->bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
      }
      default:  // groups: the format has none
        return false;
    }
  }

  bool ReadVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool ReadFixed(size_t size, uint64_t* value) {
    if (rest_.size() < size) return false;
    *value = 0;
    for (size_t i = 0; i < size; ++i) {
      *value |= static_cast<uint64_t>(static_cast<unsigned char>(rest_[i])) << (8 * i);
    }
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  bool ok_ = true;
};

void WriteVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void WriteVarintField(uint32_t number, uint64_t value, std::string* out) {
  WriteVarint(number << 3 | kVarint, out);
  WriteVarint(value, out);
}

void WriteBytesField(uint32_t number, std::string_view bytes, std::string* out) {
  WriteVarint(number << 3 | kBytes, out);
  WriteVarint(bytes.size(), out);
  out->append(bytes);
}

void WriteFloatField(uint32_t number, float value, std::string* out) {
  WriteVarint(number << 3 | kFixed32, out);
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(bits >> shift));
}

bool ParsePiece(std::string_view message, SentencePieceModel::Piece* piece) {
  MessageReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == kText && field.type == kBytes) piece->text = field.bytes;
    if (field.number == kScore && field.type == kFixed32) {
      piece->score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    }
    if (field.number == kType && field.type == kVarint) {
      // The file's numbers are TokenType's.
      if (field.value < 1 || field.value > 6) return false;
      piece->type = static_cast<TokenType>(field.value);
    }
  }
  return reader.ok();
}

bool ParseTrainer(std::string_view message, SentencePieceModel* model) {
  MessageReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == kByteFallback) model->byte_fallback = field.value != 0;
    if (field.number == kWhitespaceAsSuffix) model->treat_whitespace_as_suffix = field.value != 0;
    if (field.number == kUnknownSurface && field.type == kBytes) {
      model->unknown_surface = field.bytes;
    }
  }
  return reader.ok();
}

bool ParseNormalizer(std::string_view message, SentencePieceModel* model) {
  MessageReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == kCharacterMap) model->has_character_map = !field.bytes.empty();
    if (field.number == kDummyPrefix) model->add_dummy_prefix = field.value != 0;
    if (field.number == kRemoveWhitespaces) model->remove_extra_whitespaces = field.value != 0;
    if (field.number == kEscapeWhitespaces) model->escape_whitespaces = field.value != 0;
  }
  return reader.ok();
}

// The library reads them without looking. `message`: a normalizer's specification.
absl::Status CheckCharacterMaps(std::string_view message) {
  MessageReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    if (field.number != kCharacterMap || field.type != kBytes) continue;
    RETURN_IF_ERROR(CheckCharacterMap(field.bytes));
  }
  return absl::OkStatus();
}

// "<0x0A>"
std::string BytePiece(int byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

bool HasAllBytes(const std::vector<SentencePieceModel::Piece>& pieces) {
  absl::flat_hash_set<std::string> bytes;
  for (const SentencePieceModel::Piece& piece : pieces) {
    if (piece.type == TokenType::kByte) bytes.insert(piece.text);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!bytes.contains(BytePiece(byte))) return false;
  }
  return bytes.size() == 256;
}

}  // namespace

absl::StatusOr<SentencePieceModel> SentencePieceModel::Parse(std::string_view serialized) {
  SentencePieceModel model;
  bool has_trainer = false;
  bool has_normalizer = false;
  MessageReader reader(serialized);
  Field field;
  const auto bad = [](std::string_view what) {
    return absl::InvalidArgumentError(
        StrCat("tokenizer.model: ", what, ": damaged, or not a SentencePiece model"));
  };
  while (reader.Next(&field)) {
    if (field.number == kPieces) {
      Piece& piece = model.pieces.emplace_back();
      if (field.type != kBytes || !ParsePiece(field.bytes, &piece)) {
        return bad(StrCat("piece ", model.pieces.size() - 1, " is malformed"));
      }
      continue;
    }
    // The library runs these when it loads a model: they are not true of one whose dummy prefix
    // was taken away.
    if (field.number == kSelfTest) continue;
    if (field.number == kTrainer && !ParseTrainer(field.bytes, &model)) {
      return bad("the trainer's specification is malformed");
    }
    if (field.number == kNormalizer && !ParseNormalizer(field.bytes, &model)) {
      return bad("the normalizer's specification is malformed");
    }
    if (field.number == kNormalizer || field.number == kDenormalizer) {
      RETURN_IF_ERROR(CheckCharacterMaps(field.bytes));
    }
    has_trainer = has_trainer || field.number == kTrainer;
    has_normalizer = has_normalizer || field.number == kNormalizer;
    model.other_fields.append(field.raw);
  }
  if (!reader.ok()) return bad(StrCat("malformed after ", model.pieces.size(), " pieces"));
  if (model.pieces.empty()) return bad("it has no pieces");
  // Pieces come first: a file that is cut between two of them would pass for a smaller model.
  if (!has_trainer || !has_normalizer) {
    return bad(StrCat("it ends after ", model.pieces.size(), " pieces"));
  }
  return model;
}

absl::StatusOr<SentencePieceModel> SentencePieceModel::FromSpec(const TokenizerSpec& spec) {
  const size_t n_tokens = spec.tokens.size();
  if (n_tokens == 0 || spec.scores.size() != n_tokens || spec.types.size() != n_tokens) {
    return absl::InvalidArgumentError(StrCat("tokenizer: ", n_tokens, " pieces, ",
                                             spec.scores.size(), " scores and ", spec.types.size(),
                                             " types: want as many of each, and some"));
  }
  SentencePieceModel model;
  model.pieces.reserve(n_tokens);
  for (size_t id = 0; id < n_tokens; ++id) {
    model.pieces.push_back({spec.tokens[id], spec.scores[id], spec.types[id]});
  }
  model.add_dummy_prefix = spec.add_space_prefix;
  model.remove_extra_whitespaces = false;
  model.byte_fallback = HasAllBytes(model.pieces);
  std::string trainer;
  WriteVarintField(kModelType, kBpe, &trainer);
  WriteBytesField(kTrainer, trainer, &model.other_fields);
  std::string normalizer;
  WriteBytesField(kName, "identity", &normalizer);
  WriteBytesField(kNormalizer, normalizer, &model.other_fields);
  return model;
}

std::string SentencePieceModel::Serialize() const {
  std::string out;
  absl::flat_hash_set<std::string_view> texts;
  for (const Piece& piece : pieces) texts.insert(piece.text);
  const auto unused_name = [&](size_t id) {
    // U+0001 in front: no text is tokenized into a control piece anyway, the name has to be unique.
    std::string name = StrCat("\x01", "piece ", id);
    while (texts.contains(name)) name.push_back('\x01');
    return name;
  };
  absl::flat_hash_set<std::string_view> written;
  bool has_unknown = false;
  std::string message;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    const bool refused = piece.text.empty() || !written.insert(piece.text).second ||
                         (piece.type == TokenType::kUnknown && has_unknown) ||
                         (piece.type == TokenType::kByte && !byte_fallback);
    message.clear();
    WriteBytesField(kText, refused ? unused_name(id) : piece.text, &message);
    WriteFloatField(kScore, piece.score, &message);
    WriteVarintField(kType, static_cast<uint64_t>(refused ? TokenType::kControl : piece.type),
                     &message);
    WriteBytesField(kPieces, message, &out);
    has_unknown = has_unknown || (!refused && piece.type == TokenType::kUnknown);
  }
  if (!has_unknown) {
    message.clear();
    WriteBytesField(kText, unused_name(pieces.size()), &message);
    WriteVarintField(kType, static_cast<uint64_t>(TokenType::kUnknown), &message);
    WriteBytesField(kPieces, message, &out);
  }

  // A message that is there twice is merged, field by field, and the last value of a field counts:
  // so what stands here goes over what stands in other_fields.
  out.append(other_fields);
  message.clear();
  WriteVarintField(kByteFallback, byte_fallback, &message);
  WriteBytesField(kTrainer, message, &out);
  message.clear();
  WriteVarintField(kDummyPrefix, add_dummy_prefix, &message);
  WriteVarintField(kRemoveWhitespaces, remove_extra_whitespaces, &message);
  WriteBytesField(kNormalizer, message, &out);
  return out;
}

}  // namespace fovea::model
