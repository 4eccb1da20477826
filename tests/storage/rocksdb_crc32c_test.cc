// The CRC32C that RocksDB is given (storage/rocksdb_crc32c.cc).
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace rocksdb::crc32c {
uint32_t Extend(uint32_t crc, const char* data, size_t n_bytes);  // in no public header
}

// The names that the linker's --wrap makes: the replacement, and RocksDB's own function.
extern "C" {
uint32_t __wrap__ZN7rocksdb6crc32c6ExtendEjPKcm(uint32_t crc, const char* data, size_t n_bytes);
uint32_t __real__ZN7rocksdb6crc32c6ExtendEjPKcm(uint32_t crc, const char* data, size_t n_bytes);
}

namespace {

constexpr auto* kReplacement = &__wrap__ZN7rocksdb6crc32c6ExtendEjPKcm;
constexpr auto* kRocksDbs = &__real__ZN7rocksdb6crc32c6ExtendEjPKcm;

TEST(RocksDbCrc32cTest, CallsReachTheReplacement) {
  EXPECT_EQ(&rocksdb::crc32c::Extend, kReplacement);
  EXPECT_NE(kRocksDbs, kReplacement);
}

// Vectors of RFC 3720, B.4, and the check value of CRC catalogues.
TEST(RocksDbCrc32cTest, HasThePublishedValues) {
  const auto crc = [](const std::string& s) { return kReplacement(0, s.data(), s.size()); };
  EXPECT_EQ(crc(""), 0u);
  EXPECT_EQ(crc("123456789"), 0xE3069283u);
  EXPECT_EQ(crc(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc(std::string(32, '\xff')), 0x62A8AB43u);
}

// A store that one build wrote is read by the other.
TEST(RocksDbCrc32cTest, EqualsRocksDbsOwn) {
  std::mt19937 rng(7);
  std::vector<char> bytes(100000);
  for (char& c : bytes) c = static_cast<char>(rng());
  for (int i = 0; i < 2000; ++i) {
    const size_t begin = rng() % 64;
    const size_t n = i < 1000 ? rng() % 300 : rng() % (bytes.size() - begin);
    const uint32_t before = rng();
    EXPECT_EQ(kReplacement(before, bytes.data() + begin, n),
              kRocksDbs(before, bytes.data() + begin, n))
        << "from byte " << begin << ", " << n << " bytes";
  }
}

// A checksum goes on where it stopped.
TEST(RocksDbCrc32cTest, PartsMakeTheWhole) {
  const std::string text = "the memory lies beside the river, where nobody reads it twice";
  const uint32_t whole = kReplacement(0, text.data(), text.size());
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t head = kReplacement(0, text.data(), cut);
    EXPECT_EQ(kReplacement(head, text.data() + cut, text.size() - cut), whole) << "cut at " << cut;
  }
}

}  // namespace
