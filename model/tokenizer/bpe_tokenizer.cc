#include "model/tokenizer/bpe_tokenizer.h"

#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "model/tokenizer/bpe_merges.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/utf8.h"
#include "model/tokenizer/vocabulary.h"

namespace fovea::model {
namespace {

// Most words of a text are repetitions: each Encode call remembers what the short ones became. The
// call owns its cache, so threads share nothing and nothing outlives the text.
class WordCache {
 public:
  using Symbol = BpeMerges::Symbol;

  // A word of `merges` ∪ `whole`; valid until the next call.
  template <typename ComputeFn>
  std::span<const Symbol> Get(std::string_view word, ComputeFn compute) {
    if (word.size() > kMaxWord || spans_.size() >= kMaxWords) {
      scratch_.clear();
      compute(word, &scratch_);
      return scratch_;
    }
    const auto [it, is_new] = spans_.try_emplace(word);
    if (is_new) {
      it->second.begin = symbols_.size();
      compute(word, &symbols_);
      it->second.size = symbols_.size() - it->second.begin;
    }
    return std::span<const Symbol>(symbols_).subspan(it->second.begin, it->second.size);
  }

 private:
  // Longer words hardly come twice; more distinct ones cost memory and cache misses for nothing.
  static constexpr size_t kMaxWord = 48;
  static constexpr size_t kMaxWords = 1 << 16;
  struct Span {
    size_t begin = 0;
    size_t size = 0;
  };
  absl::flat_hash_map<std::string_view, Span> spans_;
  std::vector<Symbol> symbols_;
  std::vector<Symbol> scratch_;
};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(std::unique_ptr<Vocabulary> vocabulary, std::unique_ptr<BpeMerges> merges,
               std::unique_ptr<PreTokenizer> pre_tokenizer)
      : vocabulary_(std::move(vocabulary)),
        merges_(std::move(merges)),
        pre_tokenizer_(std::move(pre_tokenizer)),
        user_tokens_(*vocabulary_, [this](int32_t id) { return vocabulary_->IsUserDefined(id); }),
        all_tokens_(*vocabulary_, [this](int32_t id) {
          return vocabulary_->IsSpecial(id) || vocabulary_->IsUserDefined(id);
        }) {
    bytes_.resize(vocabulary_->size());
    for (int32_t id = 0; id < vocabulary_->size(); ++id) bytes_[id] = BytesOf(id);
  }

  Encoding Encode(std::string_view text, bool parse_special) const override {
    FOVEA_CHECK(text.size() <= std::numeric_limits<uint32_t>::max());
    Encoding encoding;
    // English text has about four bytes a token.
    encoding.ids.reserve(text.size() / 4 + 1);
    encoding.ends.reserve(text.size() / 4 + 1);
    WordCache cache;
    const AddedTokens& added = parse_special ? all_tokens_ : user_tokens_;
    added.Split(text, [&](std::string_view piece, int32_t id) {
      if (id >= 0) {
        encoding.ids.push_back(id);
        encoding.ends.push_back(static_cast<uint32_t>(piece.data() + piece.size() - text.data()));
        return;
      }
      pre_tokenizer_->Split(piece, [&](std::string_view word) {
        const auto offset = static_cast<uint32_t>(word.data() - text.data());
        for (const BpeMerges::Symbol& symbol :
             cache.Get(word, [this](std::string_view w, std::vector<BpeMerges::Symbol>*symbols) {
               EncodeWord(w, symbols);
             })) {
          encoding.ids.push_back(symbol.id);
          encoding.ends.push_back(offset + symbol.end);
        }
      });
    });
    // Bytes that the vocabulary lacks may end the text; they belong to the last token.
    if (!encoding.ends.empty()) encoding.ends.back() = static_cast<uint32_t>(text.size());
    return encoding;
  }

  std::string Decode(std::span<const int32_t> ids, bool show_special) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!vocabulary_->Contains(id)) continue;
      if (show_special && vocabulary_->IsSpecial(id)) {
        text += vocabulary_->spec().tokens[id];
      } else {
        text += bytes_[id];
      }
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
  std::string BytesOf(int32_t id) const {
    if (vocabulary_->IsSpecial(id)) return "";
    const std::string& token = vocabulary_->spec().tokens[id];
    if (vocabulary_->spec().types[id] == TokenType::kUserDefined) return token;
    // Added tokens are stored as they are written; some files do not mark them.
    return FromByteAlphabet(token).value_or(token);
  }

  // Ends within a character are moved to where it ends.
  void EncodeWord(std::string_view word, std::vector<BpeMerges::Symbol>* symbols) const {
    const size_t first = symbols->size();
    if (vocabulary_->spec().ignore_merges) {
      const int32_t id = vocabulary_->Find(ToByteAlphabet(word));
      if (id >= 0 && !vocabulary_->IsSpecial(id)) {
        symbols->push_back({id, static_cast<uint32_t>(word.size())});
        return;
      }
    }
    merges_->Apply(word, symbols);
    for (size_t i = first; i < symbols->size(); ++i) {
      uint32_t& end = (*symbols)[i].end;
      while (end < word.size() && IsUtf8Continuation(word[end])) ++end;
    }
  }

  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<BpeMerges> merges_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  AddedTokens user_tokens_;
  AddedTokens all_tokens_;
  std::vector<std::string> bytes_;  // by id; empty for special tokens
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateBpeTokenizer(const TokenizerSpec& spec) {
  ASSIGN_OR_RETURN(std::unique_ptr<PreTokenizer> pre_tokenizer,
                   PreTokenizer::Create(spec.pre_tokenizer));
  ASSIGN_OR_RETURN(std::unique_ptr<Vocabulary> vocabulary, Vocabulary::Create(spec));
  ASSIGN_OR_RETURN(std::unique_ptr<BpeMerges> merges, BpeMerges::Create(*vocabulary));
  return std::make_unique<BpeTokenizer>(std::move(vocabulary), std::move(merges),
                                        std::move(pre_tokenizer));
}

}  // namespace fovea::model
