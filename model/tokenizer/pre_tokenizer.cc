#include "model/tokenizer/pre_tokenizer.h"

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "model/tokenizer/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace fovea::model {
namespace {

// Unicode's White_Space. Not \s: PCRE2's also has U+180E, which is none since Unicode 6.3 and none
// to the engines that the vocabularies were made with.
#define FOVEA_SPACE                                           \
  R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A})" \
  R"(\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})"
// A run of spaces leaves its last one to the word that follows.
#define FOVEA_SPACES "[" FOVEA_SPACE "]+(?![^" FOVEA_SPACE "])|[" FOVEA_SPACE "]+"
#define FOVEA_OTHER "[^" FOVEA_SPACE R"(\p{L}\p{N}]+)"

struct Pattern {
  std::string_view name;
  const char* regex;
};

constexpr Pattern kPatterns[] = {
    {"gpt2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?)" FOVEA_OTHER "|" FOVEA_SPACES},
    // Digits split off first, one by one, then GPT-2's expression on what is between them. In one
    // expression: a digit takes no space with it, and spaces before a digit end a text.
    {"smollm", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?)" FOVEA_OTHER "|[" FOVEA_SPACE
               "]+(?![^" FOVEA_SPACE R"(\p{N}])|[)" FOVEA_SPACE "]+"},
    {"llama3", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?)" FOVEA_OTHER
               R"([\r\n]*|[)" FOVEA_SPACE R"(]*[\r\n]+|)" FOVEA_SPACES},
    {"qwen2", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?)" FOVEA_OTHER
              R"([\r\n]*|[)" FOVEA_SPACE R"(]*[\r\n]+|)" FOVEA_SPACES},
};

#undef FOVEA_OTHER
#undef FOVEA_SPACES
#undef FOVEA_SPACE

std::string ErrorText(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct PreTokenizer::Regex {
  ~Regex() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
};

PreTokenizer::PreTokenizer(std::unique_ptr<Regex> regex) : regex_(std::move(regex)) {}
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(std::string_view name) {
  std::string known;
  for (const Pattern& pattern : kPatterns) {
    if (pattern.name != name) {
      known += StrCat(known.empty() ? "" : ", ", pattern.name);
      continue;
    }
    auto regex = std::make_unique<Regex>();
    int error = 0;
    PCRE2_SIZE error_offset = 0;
    // Anchored: every position begins a word, so a match never has to be searched for.
    regex->code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.regex), PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &error_offset, nullptr);
    if (regex->code == nullptr) {
      return absl::InternalError(StrCat("pre-tokenizer ", name, ": PCRE2 refuses its expression: ",
                                        ErrorText(error), " at offset ", error_offset));
    }
    // Where there is no JIT (PCRE2_ERROR_JIT_BADOPTION), pcre2_match interprets.
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
    regex->context = pcre2_match_context_create(nullptr);
    if (regex->context == nullptr) return absl::ResourceExhaustedError("PCRE2: out of memory");
    // PCRE2's limits guard against exponential patterns; these are linear, and a run of a million
    // spaces is a legitimate text.
    pcre2_set_match_limit(regex->context, UINT32_MAX);
    pcre2_set_depth_limit(regex->context, UINT32_MAX);
    pcre2_set_heap_limit(regex->context, UINT32_MAX);
    return std::unique_ptr<PreTokenizer>(new PreTokenizer(std::move(regex)));
  }
  return absl::UnimplementedError(
      StrCat("pre-tokenizer \"", name, "\" is not known: want one of ", known));
}

void PreTokenizer::Split(std::string_view text,
                         absl::FunctionRef<void(std::string_view)> word) const {
  // The matcher writes into it, so each call has its own.
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  FOVEA_CHECK(match != nullptr);
  while (!text.empty()) {
    // UTF mode refuses a subject with an invalid byte, and PCRE2_MATCH_INVALID_UTF would check the
    // rest of the text again at every word; so the text is cut at those bytes first.
    const std::string_view valid = text.substr(0, ValidUtf8Prefix(text));
    size_t begin = 0;
    while (begin < valid.size()) {
      const int rc = pcre2_match(regex_->code, reinterpret_cast<PCRE2_SPTR>(valid.data()),
                                 valid.size(), begin, PCRE2_NO_UTF_CHECK, match, regex_->context);
      size_t end = rc > 0 ? pcre2_get_ovector_pointer(match)[1] : begin;
      // The expressions match at every position. Should one not, or the matcher run out of memory,
      // the text still has to be covered: one character is a word.
      if (end <= begin) end = begin + NextUtf8(valid.substr(begin)).size_bytes;
      word(valid.substr(begin, end - begin));
      begin = end;
    }
    text.remove_prefix(valid.size());
    if (!text.empty()) {
      word(text.substr(0, 1));
      text.remove_prefix(1);
    }
  }
  pcre2_match_data_free(match);
}

}  // namespace fovea::model
