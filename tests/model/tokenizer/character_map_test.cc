#include "model/tokenizer/character_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "goldens.h"
#include "model/tokenizer/sentencepiece_library.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace fovea::model {
namespace {

using testing::HasSubstr;

constexpr uint32_t kEndsHere = 0x100;

std::string U32(uint32_t value) {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(value >> shift));
  return bytes;
}

// "a", "aa", "aaa", … up to `depth` times: the node behind n times "a" is unit 256·(n + 1).
struct Chain {
  std::vector<uint32_t> units;
  std::string replacements = std::string("x\0yy\0", 5);

  explicit Chain(uint32_t depth) : units(256 * (depth + 2)) {
    units[0] = 256u << 10;
    for (uint32_t n = 1; n <= depth; ++n) {
      const uint32_t at = 256 * n ^ 'a';
      units[at] = 'a' | kEndsHere | (at ^ 256 * (n + 1)) << 10;
      units[256 * (n + 1)] = 0x80000000 | (n % 2 == 0 ? 0 : 2);
    }
  }
  uint32_t& UnitOf(uint32_t n) { return units[256 * n ^ 'a']; }
  std::string Bytes() const {
    std::string bytes = U32(static_cast<uint32_t>(4 * units.size()));
    for (const uint32_t unit : units) bytes += U32(unit);
    return bytes + replacements;
  }
  void ExpectRefused(std::string_view words) const {
    const absl::Status status = CheckCharacterMap(Bytes());
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(words)));
  }
};

TEST(CharacterMapTest, AcceptsWhatStaysWithinIt) {
  EXPECT_TRUE(CheckCharacterMap("").ok());
  for (const uint32_t depth : {1u, 2u, 32u}) {
    EXPECT_TRUE(CheckCharacterMap(Chain(depth).Bytes()).ok()) << depth;
  }
}

TEST(CharacterMapTest, RefusesATrieThatPointsBehindItsEnd) {
  for (uint32_t n = 0; n <= 2; ++n) {
    Chain chain(2);
    (n == 0 ? chain.units[0] : chain.UnitOf(n)) ^= 1u << 20;
    chain.ExpectRefused("behind its end");
  }
  // The last block has to be whole: any byte may follow.
  Chain chain(2);
  chain.units.pop_back();
  chain.ExpectRefused("behind its end");
}

TEST(CharacterMapTest, RefusesReplacementsBehindTheEndOrWithoutOne) {
  Chain chain(2);
  chain.units[256 * 3] |= 5;
  chain.ExpectRefused("a replacement lies behind");
  Chain endless(2);
  endless.replacements.pop_back();
  endless.ExpectRefused("nothing ends");
}

TEST(CharacterMapTest, RefusesMoreMatchesThanTheLibraryHasRoomFor) {
  Chain(33).ExpectRefused("more than 32");
  Chain circle(3);
  circle.UnitOf(3) = 'a' | kEndsHere | ((256 * 3 ^ 'a') ^ 256 * 2) << 10;
  circle.ExpectRefused("circles");
}

TEST(CharacterMapTest, RefusesSizesThatDoNotFit) {
  const std::string good = Chain(1).Bytes();
  for (const std::string& bytes :
       {std::string("abc"), U32(0) + good.substr(4), U32(3) + good.substr(4),
        U32(0xFFFFFFFC) + good.substr(4), good.substr(0, good.size() - 5)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckCharacterMap(bytes)));
  }
}

// What passes can be tokenized with; a sanitizer sees where it reads beside the map.
TEST(CharacterMapTest, DamagedModelsAreRefusedOrTokenize) {
  const std::string good = ReadData("sentencepiece_normalizing.model");
  int n_refused = 0;
  for (size_t at = 0; at < good.size(); at += 3) {
    std::string bytes = good;
    bytes[at] ^= static_cast<char>(1 << at % 8);
    const absl::StatusOr<SentencePieceModel> model = SentencePieceModel::Parse(bytes);
    if (!model.ok()) {
      n_refused += model.status().message().find("character map") != std::string::npos ? 1 : 0;
      continue;
    }
    std::string error;
    const auto library = SentencePieceLibrary::Load(model->Serialize(), &error);
    if (library == nullptr) continue;
    std::vector<int32_t> ids;
    std::vector<uint32_t> ends;
    library->Encode("Hello, na\xC3\xAFve \xEF\xBC\xA1\xEF\xBD\xB1 world", &ids, &ends);
  }
  EXPECT_GT(n_refused, 10);
}

}  // namespace
}  // namespace fovea::model
