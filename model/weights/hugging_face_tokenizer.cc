#include "model/weights/hugging_face_tokenizer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/file.h"
#include "model/weights/file_checks.h"
#include "model/weights/json_file.h"
#include "model/weights/tokenizer_checks.h"

namespace fovea::model {
namespace {

// Vocabularies of 250,000 tokens take about 35 MB.
constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;

std::string Type(const Json& object) {
  const Json* type = object.is_object() ? JsonFind(object, "type") : nullptr;
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

// A flag of a part of tokenizer.json, with the library's own default.
bool Flag(const Json& object, std::string_view key, bool fallback) {
  const Json* value = JsonFind(object, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : fallback;
}

// The elements of a "Sequence", or the one part alone.
std::vector<const Json*> Parts(const Json* part, std::string_view list_key) {
  std::vector<const Json*> parts;
  if (part == nullptr) return parts;
  if (Type(*part) != "Sequence") return {part};
  if (const Json* list = JsonFind(*part, list_key); list != nullptr && list->is_array()) {
    for (const Json& element : *list) parts.push_back(&element);
  }
  return parts;
}

const Json* FindPart(const std::vector<const Json*>& parts, std::string_view type) {
  for (const Json* part : parts) {
    if (Type(*part) == type) return part;
  }
  return nullptr;
}

absl::Status UnknownPart(std::string_view what, const Json* part) {
  std::string types;
  for (const Json* element : Parts(part, what == "normalizer" ? "normalizers" : "pretokenizers")) {
    types += StrCat(types.empty() ? "" : ", ", Printable(Type(*element)));
  }
  return absl::UnimplementedError(StrCat(
      "key ", what, ": (", types, ") is none that fovea knows; take a GGUF file of the model"));
}

// Which of fovea's splits these parts make.
absl::StatusOr<std::string> RecognizePreTokenizer(const Json* pre_tokenizer) {
  // The published expressions of GPT-2, Llama 3 and Qwen2.
  static constexpr std::string_view kGpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  static constexpr std::string_view kLlama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static constexpr std::string_view kQwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::vector<const Json*> parts = Parts(pre_tokenizer, "pretokenizers");
  const absl::Status unknown = UnknownPart("pre_tokenizer", pre_tokenizer);
  if (parts.empty() || parts.size() > 2 || Type(*parts.back()) != "ByteLevel" ||
      Flag(*parts.back(), "add_prefix_space", true)) {
    return unknown;
  }
  const bool use_regex = Flag(*parts.back(), "use_regex", true);
  if (parts.size() == 1) {
    if (use_regex) return "gpt2";
    return unknown;
  }
  const Json& first = *parts[0];
  if (Type(first) == "Digits" && Flag(first, "individual_digits", false) && use_regex) {
    return "smollm";
  }
  const Json* pattern = JsonFind(first, "pattern");
  const Json* behavior = JsonFind(first, "behavior");
  if (Type(first) != "Split" || use_regex || Flag(first, "invert", false) || pattern == nullptr ||
      !pattern->is_object() || behavior == nullptr || *behavior != "Isolated") {
    return unknown;
  }
  const Json* regex = JsonFind(*pattern, "Regex");
  if (regex == nullptr || !regex->is_string()) return unknown;
  const auto text = regex->get<std::string>();
  if (text == kGpt2) return "gpt2";
  if (text == kLlama3) return "llama3";
  if (text == kQwen2) return "qwen2";
  return absl::UnimplementedError(StrCat("key pre_tokenizer: the expression '", Printable(text),
                                         "' is none that fovea knows; take a GGUF file of the "
                                         "model"));
}

// Puts the vocabulary and the added tokens at their ids.
absl::Status ReadTokens(const Json& json, const Json& model, int64_t vocab_size,
                        TokenizerSpec* spec) {
  const Json* vocab = JsonFind(model, "vocab");
  if (vocab == nullptr || !vocab->is_object()) {
    return absl::InvalidArgumentError("key model: vocab: want an object of tokens and their ids");
  }
  std::map<int64_t, std::pair<std::string, TokenType>> tokens;
  for (const auto& [token, value] : vocab->items()) {
    const auto id = JsonToInteger(value);
    if (!id.has_value() || *id < 0 || *id >= vocab_size) {
      return absl::InvalidArgumentError(StrCat("key model: vocab: token '", Printable(token),
                                               "': want an id below vocab_size ", vocab_size));
    }
    const auto [it, inserted] = tokens.try_emplace(*id, token, TokenType::kNormal);
    if (!inserted) {
      return absl::InvalidArgumentError(StrCat("key model: vocab: tokens '", Printable(token),
                                               "' and '", Printable(it->second.first),
                                               "' have the same id ", *id));
    }
  }
  if (const Json* added = JsonFind(json, "added_tokens"); added != nullptr) {
    if (!added->is_array()) return absl::InvalidArgumentError("key added_tokens: want a list");
    for (const Json& element : *added) {
      if (!element.is_object()) {
        return absl::InvalidArgumentError("key added_tokens: want a list of objects");
      }
      ASSIGN_OR_RETURN(const int64_t id, JsonInteger(element, "id", -1));
      ASSIGN_OR_RETURN(const std::string content, JsonString(element, "content", ""));
      if (id < 0 || content.empty()) {
        return absl::InvalidArgumentError("key added_tokens: want id and content in each object");
      }
      // Some models name padding tokens behind the embedding table; none of them can be used.
      if (id >= vocab_size) continue;
      tokens[id] = {
          content, Flag(element, "special", false) ? TokenType::kControl : TokenType::kUserDefined};
    }
  }
  if (tokens.empty()) return absl::InvalidArgumentError("key model: vocab: no tokens");
  // Ids below vocab_size: as many as the embedding table has rows, at most.
  const auto n_tokens = static_cast<size_t>(tokens.rbegin()->first) + 1;
  spec->tokens.resize(n_tokens);
  spec->types.assign(n_tokens, TokenType::kUnused);
  for (auto& [id, token] : tokens) {
    spec->tokens[id] = std::move(token.first);
    spec->types[id] = token.second;
  }
  for (size_t id = 0; id < n_tokens; ++id) {
    if (spec->types[id] == TokenType::kUnused) spec->tokens[id] = StrCat("[unused token ", id, "]");
  }
  return absl::OkStatus();
}

// "left right", whichever way the file writes pairs.
absl::Status ReadMerges(const Json& model, std::vector<std::string>* merges) {
  const Json* list = JsonFind(model, "merges");
  if (list == nullptr || !list->is_array()) {
    return absl::InvalidArgumentError("key model: merges: want a list");
  }
  merges->reserve(list->size());
  for (const Json& merge : *list) {
    if (merge.is_string()) {
      merges->push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      merges->push_back(StrCat(merge[0].get<std::string>(), " ", merge[1].get<std::string>()));
    } else {
      return absl::InvalidArgumentError(
          StrCat("key model: merges: element ", merges->size(), " is no pair of tokens"));
    }
  }
  return absl::OkStatus();
}

int32_t FindToken(const TokenizerSpec& spec, std::string_view token) {
  const auto it = std::find(spec.tokens.begin(), spec.tokens.end(), token);
  return it == spec.tokens.end() ? -1 : static_cast<int32_t>(it - spec.tokens.begin());
}

// A vocabulary that was converted from SentencePiece's BPE: pieces with U+2581 for spaces, bytes as
// "<0x0A>". SentencePiece merges the pair with the best score first, tokenizer.json the pair that
// is listed first: minus the place in the list is a score that makes them the same.
absl::Status ReadConvertedSentencePiece(const Json& json, const Json& model, TokenizerSpec* spec) {
  spec->kind = TokenizerSpec::Kind::kSentencePiece;
  std::vector<std::string> merges;
  RETURN_IF_ERROR(ReadMerges(model, &merges));
  std::map<std::string_view, size_t> ids;
  for (size_t id = 0; id < spec->tokens.size(); ++id) ids.emplace(spec->tokens[id], id);
  spec->scores.assign(spec->tokens.size(), 0.0f);
  std::vector<bool> has_score(spec->tokens.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    std::string& merge = merges[rank];
    const size_t space = merge.find(' ');
    if (space == std::string::npos) {
      return absl::InvalidArgumentError(
          StrCat("key model: merges: element ", rank, " is no pair of tokens"));
    }
    merge.erase(space, 1);
    const auto it = ids.find(merge);
    if (it == ids.end()) {
      return absl::InvalidArgumentError(StrCat("key model: merges: element ", rank, " makes '",
                                               Printable(merge), "', which is no token"));
    }
    if (has_score[it->second]) continue;
    has_score[it->second] = true;
    spec->scores[it->second] = -static_cast<float>(rank);
  }
  ASSIGN_OR_RETURN(const std::string unknown, JsonString(model, "unk_token", ""));
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    const std::string& token = spec->tokens[id];
    if (token == unknown) spec->types[id] = TokenType::kUnknown;
    if (token.size() == 6 && token.starts_with("<0x") && token.back() == '>') {
      spec->types[id] = TokenType::kByte;
    }
  }
  // The dummy prefix: a normalizer that prepends it, or a Metaspace that does.
  spec->add_space_prefix =
      FindPart(Parts(JsonFind(json, "normalizer"), "normalizers"), "Prepend") != nullptr;
  if (const Json* metaspace =
          FindPart(Parts(JsonFind(json, "pre_tokenizer"), "pretokenizers"), "Metaspace")) {
    const Json* scheme = JsonFind(*metaspace, "prepend_scheme");
    spec->add_space_prefix =
        scheme != nullptr ? *scheme != "never" : Flag(*metaspace, "add_prefix_space", true);
  }
  return absl::OkStatus();
}

// Which special tokens the post-processor puts around a text.
void ReadPostProcessor(const Json& json, const TokenizerSpec& spec, int32_t* first, int32_t* last) {
  *first = -1;
  *last = -1;
  const Json* part =
      FindPart(Parts(JsonFind(json, "post_processor"), "processors"), "TemplateProcessing");
  const Json* single = part != nullptr ? JsonFind(*part, "single") : nullptr;
  if (single == nullptr || !single->is_array()) return;
  bool before_text = true;
  for (const Json& element : *single) {
    if (!element.is_object()) return;
    const Json* special = JsonFind(element, "SpecialToken");
    if (special == nullptr || !special->is_object()) {
      before_text = false;
      continue;
    }
    const Json* name = JsonFind(*special, "id");
    if (name == nullptr || !name->is_string()) return;
    (before_text ? *first : *last) = FindToken(spec, name->get<std::string>());
  }
}

absl::Status ReadTokenizerJson(const Json& json, int64_t vocab_size, TokenizerSpec* spec) {
  const Json* model = JsonFind(json, "model");
  if (model == nullptr || !model->is_object()) {
    return absl::InvalidArgumentError("key model: want an object");
  }
  // Old files leave the type out.
  const std::string type = JsonFind(*model, "type") == nullptr ? "BPE" : Type(*model);
  if (type != "BPE") {
    return absl::UnimplementedError(
        StrCat("key model: type '", Printable(type), "'; fovea knows BPE"));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string affix, JsonString(*model, key, ""));
    if (!affix.empty()) {
      return absl::UnimplementedError(StrCat("key model: ", key, ": fovea knows none"));
    }
  }
  RETURN_IF_ERROR(ReadTokens(json, *model, vocab_size, spec));
  const Json* pre_tokenizer = JsonFind(json, "pre_tokenizer");
  if (FindPart(Parts(pre_tokenizer, "pretokenizers"), "ByteLevel") == nullptr) {
    if (!Flag(*model, "byte_fallback", false)) return UnknownPart("pre_tokenizer", pre_tokenizer);
    RETURN_IF_ERROR(ReadConvertedSentencePiece(json, *model, spec));
  } else {
    spec->kind = TokenizerSpec::Kind::kByteLevelBpe;
    spec->add_space_prefix = false;
    // Qwen2 composes characters (NFC) first, which changes nothing in composed text.
    const Json* normalizer = JsonFind(json, "normalizer");
    if (normalizer != nullptr && Type(*normalizer) != "NFC") {
      return UnknownPart("normalizer", normalizer);
    }
    ASSIGN_OR_RETURN(spec->pre_tokenizer, RecognizePreTokenizer(pre_tokenizer));
    RETURN_IF_ERROR(ReadMerges(*model, &spec->merges));
    spec->ignore_merges = Flag(*model, "ignore_merges", false);
  }
  int32_t first;
  int32_t last;
  ReadPostProcessor(json, *spec, &first, &last);
  if (first >= 0) {
    spec->bos_id = first;
    spec->add_bos = true;
  }
  spec->add_eos = last >= 0;
  return absl::OkStatus();
}

// "<s>", or an object whose content is that; empty where there is none.
std::string TokenText(const Json& json, std::string_view key) {
  const Json* value = JsonFind(json, key);
  if (value != nullptr && value->is_object()) value = JsonFind(*value, "content");
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

absl::Status ReadTokenizerConfig(const Json& json, TokenizerSpec* spec) {
  if (const int32_t id = FindToken(*spec, TokenText(json, "bos_token")); id >= 0) {
    spec->bos_id = id;
  }
  if (const int32_t id = FindToken(*spec, TokenText(json, "eos_token")); id >= 0) {
    // config.json's stays an end: they differ where a chat ends otherwise than a text.
    AddEndToken(std::exchange(spec->eos_id, id), spec);
  }
  ASSIGN_OR_RETURN(spec->add_bos, JsonBool(json, "add_bos_token", spec->add_bos));
  ASSIGN_OR_RETURN(spec->add_eos, JsonBool(json, "add_eos_token", spec->add_eos));
  const Json* chat = JsonFind(json, "chat_template");
  if (chat == nullptr) return absl::OkStatus();
  if (chat->is_string()) {
    spec->chat_template = chat->get<std::string>();
    return absl::OkStatus();
  }
  // Several templates by name: the default one.
  if (chat->is_array()) {
    for (const Json& element : *chat) {
      if (!element.is_object()) continue;
      const Json* name = JsonFind(element, "name");
      const Json* source = JsonFind(element, "template");
      if (name != nullptr && *name == "default" && source != nullptr && source->is_string()) {
        spec->chat_template = source->get<std::string>();
      }
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("key chat_template: want a string or a list");
}

absl::Status ReadGenerationConfig(const Json& json, int64_t vocab_size, TokenizerSpec* spec) {
  const Json* eos = JsonFind(json, "eos_token_id");
  if (eos == nullptr) return absl::OkStatus();
  for (const Json& value : eos->is_array() ? *eos : Json::array({*eos})) {
    const auto id = JsonToInteger(value);
    if (!id.has_value() || *id < 0 || *id >= vocab_size) {
      return absl::InvalidArgumentError("key eos_token_id: want ids of the vocabulary");
    }
    AddEndToken(static_cast<int32_t>(*id), spec);
  }
  return absl::OkStatus();
}

// The object in an optional file; an empty optional where there is no such file.
absl::StatusOr<std::optional<Json>> ReadOptional(const std::filesystem::path& path,
                                                 size_t max_size_bytes = size_t{16} << 20) {
  absl::StatusOr<Json> json = ReadJsonObject(path, max_size_bytes);
  if (absl::IsNotFound(json.status())) return std::optional<Json>();
  RETURN_IF_ERROR(json.status());
  return std::optional<Json>(*std::move(json));
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadHuggingFaceTokenizer(const std::filesystem::path& folder,
                                                       const HuggingFaceConfig& config) {
  TokenizerSpec spec;
  const int64_t vocab_size = config.model.vocab_size;
  const std::filesystem::path json_path = folder / "tokenizer.json";
  ASSIGN_OR_RETURN(const std::optional<Json> json, ReadOptional(json_path, kMaxTokenizerBytes));
  spec.bos_id = config.bos_id;
  if (!config.eos_ids.empty()) spec.eos_id = config.eos_ids[0];
  if (json.has_value()) {
    const absl::Status status = ReadTokenizerJson(*json, vocab_size, &spec);
    if (!status.ok()) return Annotate(status, json_path.native());
  }
  if (spec.kind != TokenizerSpec::Kind::kByteLevelBpe) {
    absl::StatusOr<std::string> model = ReadFile(folder / "tokenizer.model", kMaxTokenizerBytes);
    if (model.ok()) {
      spec.kind = TokenizerSpec::Kind::kSentencePiece;
      spec.sentencepiece_model = *std::move(model);
      // What SentencePiece's own LLaMA tokenizer does when nothing else says how.
      if (!json.has_value()) spec.add_bos = true;
    } else if (!absl::IsNotFound(model.status())) {
      return model.status();
    }
  }
  if (spec.kind == TokenizerSpec::Kind::kNone) return TokenizerSpec();
  for (const int32_t id : config.eos_ids) AddEndToken(id, &spec);

  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  ASSIGN_OR_RETURN(const std::optional<Json> tokenizer_config, ReadOptional(config_path));
  if (tokenizer_config.has_value()) {
    const absl::Status status = ReadTokenizerConfig(*tokenizer_config, &spec);
    if (!status.ok()) return Annotate(status, config_path.native());
  }
  // Newer folders keep the template in a file of its own, which then counts.
  absl::StatusOr<std::string> chat_template =
      ReadFile(folder / "chat_template.jinja", size_t{1} << 20);
  if (chat_template.ok()) {
    spec.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  const std::filesystem::path generation_path = folder / "generation_config.json";
  ASSIGN_OR_RETURN(const std::optional<Json> generation, ReadOptional(generation_path));
  if (generation.has_value()) {
    const absl::Status status = ReadGenerationConfig(*generation, vocab_size, &spec);
    if (!status.ok()) return Annotate(status, generation_path.native());
  }
  const absl::Status status = CheckTokenizerSpec(spec, vocab_size);
  if (!status.ok()) return Annotate(status, json_path.native());
  AddKnownEndTokens(&spec);
  return spec;
}

}  // namespace fovea::model
