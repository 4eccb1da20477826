#include "goldens.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "model/tokenizer/utf8.h"

namespace fovea::model {

std::string ReadData(std::string_view file_name) {
  const std::string path = FOVEA_SOURCE_DIR "/tests/model/tokenizer/data/" + std::string(file_name);
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

const std::vector<std::string>& GoldenStrings() {
  static const auto* strings = [] {
    auto* result = new std::vector<std::string>;
    std::istringstream lines(ReadData("strings.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      result->push_back(nlohmann::json::parse(line).get<std::string>());
    }
    return result;
  }();
  return *strings;
}

Golden ReadGolden(std::string_view name) {
  const nlohmann::json json =
      nlohmann::json::parse(ReadData("golden_" + std::string(name) + ".json"));
  Golden golden;
  golden.first_ids = json.at("first_ids").get<std::vector<std::vector<int32_t>>>();
  const auto number = [](const std::string& hex) {
    return static_cast<uint32_t>(std::stoul(hex, nullptr, 16));
  };
  golden.joined_hash = number(json.at("joined_hash").get<std::string>());
  const std::string hashes = json.at("hashes").get<std::string>();
  for (size_t i = 0; i + 8 <= hashes.size(); i += 8) {
    golden.hashes.push_back(number(hashes.substr(i, 8)));
  }
  return golden;
}

TokenizerSpec ReadVocabulary(std::string_view name) {
  const nlohmann::json json =
      nlohmann::json::parse(ReadData("vocabulary_" + std::string(name) + ".json"));
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  spec.pre_tokenizer = json.at("pre_tokenizer").get<std::string>();
  spec.ignore_merges = json.at("ignore_merges").get<bool>();
  spec.tokens = json.at("tokens").get<std::vector<std::string>>();
  spec.merges = json.at("merges").get<std::vector<std::string>>();
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const int32_t id : json.at("control")) spec.types[id] = TokenType::kControl;
  for (const int32_t id : json.at("user_defined")) spec.types[id] = TokenType::kUserDefined;
  spec.bos_id = 1;
  spec.eos_id = 2;
  return spec;
}

uint32_t HashOfIds(std::span<const int32_t> plain, std::span<const int32_t> special) {
  uint32_t hash = 0x811C9DC5u;
  const auto add = [&hash](int32_t id) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFFu)) * 0x01000193u;
    }
  };
  for (const int32_t id : plain) add(id);
  add(-1);
  for (const int32_t id : special) add(id);
  return hash;
}

std::string RandomBytes(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto below = [&rng](uint64_t limit) { return rng() % limit; };
  const std::string_view kSome[] = {
      " ",    "the", "\n",   "  ", "'s",     "12", "é", "中", "👩‍👩‍👧‍👦",
      "\r\n", "🇩🇪",  "<|im", "\t", "e\u0301"};
  std::string text;
  const uint64_t n_parts = below(40);
  for (uint64_t i = 0; i < n_parts; ++i) {
    switch (below(4)) {
      case 0:
        text.push_back(static_cast<char>(below(256)));
        break;
      case 1:
        // The first bytes of a character: often an incomplete one.
        text += std::string_view("\xF0\x9F\x98\x80").substr(0, 1 + below(4));
        break;
      default:
        text += kSome[below(std::size(kSome))];
    }
  }
  return text;
}

namespace {

// Whether a character of `text` has bytes on both sides of `position`.
std::vector<bool> WithinCharacter(std::string_view text) {
  std::vector<bool> within(text.size() + 1, false);
  size_t pos = 0;
  while (pos < text.size()) {
    const Utf8Step step = NextUtf8(text.substr(pos));
    const size_t size = step.status == Utf8Status::kValid ? step.size_bytes : 1;
    for (size_t i = 1; i < size; ++i) within[pos + i] = true;
    pos += size;
  }
  return within;
}

}  // namespace

void ExpectEndsFit(std::string_view text, const Encoding& encoding) {
  ASSERT_EQ(encoding.ids.size(), encoding.ends.size());
  if (encoding.ends.empty()) return;
  const std::vector<bool> within = WithinCharacter(text);
  uint32_t last = 0;
  for (const uint32_t end : encoding.ends) {
    ASSERT_GE(end, last);
    ASSERT_LE(end, text.size());
    ASSERT_FALSE(within[end]) << "end " << end << " is within a character of: " << text;
    last = end;
  }
  EXPECT_EQ(last, text.size());
}

void ExpectEndsFollowBytes(const Tokenizer& tokenizer, std::string_view text,
                           const Encoding& encoding) {
  ASSERT_EQ(encoding.ids.size(), encoding.ends.size());
  const std::vector<bool> within = WithinCharacter(text);
  size_t bytes = 0;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    bytes += tokenizer.TokenBytes(encoding.ids[i]).size();
    ASSERT_LE(bytes, text.size());
    size_t end = bytes;
    while (within[end]) ++end;
    ASSERT_EQ(encoding.ends[i], end) << "token " << i << " of: " << text;
  }
  EXPECT_EQ(bytes, text.size());
}

}  // namespace fovea::model
