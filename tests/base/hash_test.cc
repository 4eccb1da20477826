#include "base/hash.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace fovea {
namespace {

// NIST FIPS 180-4's example messages, and the empty one.
TEST(Sha256Test, KnownValues) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

// XXH3's values of the empty input, seed 0: part of stored files, so they must never change.
TEST(FastHashTest, KnownValues) {
  EXPECT_EQ(Checksum64(""), 0x2d06800538d394c2u);
  EXPECT_EQ(FastHash128("").ToHex(), "99aa06d3014798d86001c324468d497f");
}

std::string LongText() {
  std::string text;
  for (int i = 0; i < 20000; ++i) text.push_back(static_cast<char>(i * 31 % 251));
  return text;
}

TEST(FastHashTest, PiecesHashLikeTheWhole) {
  const std::string text = LongText();
  for (const size_t piece : {size_t{1}, size_t{100}, size_t{9999}, text.size()}) {
    FastHasher fast;
    Sha256 sha;
    for (size_t at = 0; at < text.size(); at += piece) {
      fast.Update(std::string_view(text).substr(at, piece));
      sha.Update(std::string_view(text).substr(at, piece));
    }
    EXPECT_EQ(fast.Finish(), FastHash128(text)) << piece;
    EXPECT_EQ(sha.FinishHex(), Sha256Hex(text)) << piece;
  }
}

TEST(FastHashTest, FinishMayBeFollowedByMore) {
  FastHasher hasher;
  hasher.Update("abc");
  EXPECT_EQ(hasher.Finish(), FastHash128("abc"));
  hasher.Update("def");
  EXPECT_EQ(hasher.Finish(), FastHash128("abcdef"));
}

TEST(FastHashTest, EveryByteAndTheSeedCount) {
  std::string text = LongText();
  const Hash128 hash = FastHash128(text);
  const uint64_t checksum = Checksum64(text);
  EXPECT_NE(FastHash128(text, 1), hash);
  for (const size_t at : {size_t{0}, size_t{12345}, text.size() - 1}) {
    text[at] = static_cast<char>(text[at] ^ 1);
    EXPECT_NE(FastHash128(text), hash) << at;
    EXPECT_NE(Checksum64(text), checksum) << at;
    text[at] = static_cast<char>(text[at] ^ 1);
  }
}

TEST(FastHashTest, HexKeepsLeadingZeros) {
  EXPECT_EQ((Hash128{0x1, 0x2}).ToHex(), "00000000000000010000000000000002");
}

TEST(HashTest, HashersMove) {
  FastHasher fast;
  fast.Update("a");
  FastHasher moved = std::move(fast);
  moved.Update("b");
  EXPECT_EQ(moved.Finish(), FastHash128("ab"));
  Sha256 sha;
  sha.Update("a");
  Sha256 moved_sha = std::move(sha);
  moved_sha.Update("b");
  EXPECT_EQ(moved_sha.FinishHex(), Sha256Hex("ab"));
}

TEST(HashTest, AsBytesCoversAllElements) {
  const std::vector<uint16_t> values = {0x6261, 0x6463};  // "abcd" on little-endian machines
  EXPECT_EQ(AsBytes(std::span<const uint16_t>(values)).size(), 4u);
  EXPECT_EQ(FastHash128(AsBytes(std::span<const uint16_t>(values))), FastHash128("abcd"));
}

}  // namespace
}  // namespace fovea
