#include "base/zip_archive.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/make_zip.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;

constexpr char kMember[] = "package/member";

// Longer than a piece, and not the same throughout.
std::string LongBytes() {
  std::string bytes;
  for (uint32_t i = 0; i < 700000; ++i) bytes += static_cast<char>(i * i >> 7);
  return bytes;
}

absl::StatusOr<std::string> Read(std::string_view zip, std::string_view name = kMember,
                                 uint64_t max_size_bytes = 1 << 20) {
  ASSIGN_OR_RETURN(const ZipArchive archive, ZipArchive::Open(zip));
  const ZipMember* member = archive.Find(name);
  if (member == nullptr) return absl::NotFoundError("none");
  return archive.Read(*member, max_size_bytes);
}

void ExpectRefused(std::string_view zip, absl::StatusCode code, const char* message) {
  const absl::Status status = Read(zip).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(ZipArchiveTest, UnpacksStoredAndDeflatedMembers) {
  for (const uint16_t method : {uint16_t{0}, kZipDeflated}) {
    for (const std::string& bytes : {std::string(), std::string("x"), LongBytes()}) {
      const std::string zip = MakeZip({{"first", "1"}, {kMember, bytes, method}, {"last", "2"}},
                                      method == 0 ? "" : "a comment");
      const auto read = Read(zip);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, bytes);
      EXPECT_EQ(ZipArchive::Open(zip)->members().size(), 3u);
    }
  }
  EXPECT_EQ(Read(MakeZip({{"a", "1"}}), "b").status().code(), absl::StatusCode::kNotFound);
}

TEST(ZipArchiveTest, ReadsSizesOfZip64Fields) {
  EXPECT_EQ(*Read(MakeZip({{kMember, "six by", 0, 0, 6}})), "six by");
  for (const uint64_t claim : {uint64_t{5}, uint64_t{7}, uint64_t{1} << 40, ~uint64_t{0}}) {
    EXPECT_EQ(Read(MakeZip({{kMember, "six by", 0, 0, claim}})).status().code(),
              absl::StatusCode::kDataLoss)
        << claim;
  }
}

TEST(ZipArchiveTest, RefusesWhatIsNoWholeArchive) {
  ExpectRefused("", absl::StatusCode::kDataLoss, "no end of a zip archive");
  ExpectRefused(std::string(100000, 'x'), absl::StatusCode::kDataLoss, "no end of a zip archive");
  ExpectRefused(MakeZip({{kMember, "x"}}) + "y", absl::StatusCode::kDataLoss,
                "no end of a zip archive");
  ExpectRefused(MakeZip({{kMember, "x"}, {kMember, "y"}}), absl::StatusCode::kInvalidArgument,
                "is there twice");
  ExpectRefused(MakeZip({{kMember, "x", 0, /*flags=*/1}}), absl::StatusCode::kUnimplemented,
                "package/member is encrypted");
  ExpectRefused(MakeZip({{kMember, "x", /*method=*/12}}), absl::StatusCode::kUnimplemented,
                "method 12");
}

TEST(ZipArchiveTest, NeverUnpacksMoreThanItMay) {
  const std::string bomb(1 << 24, 'a');
  const std::string zip = MakeZip({{kMember, bomb, kZipDeflated}});
  EXPECT_LT(zip.size(), bomb.size() / 100);
  ExpectRefused(zip, absl::StatusCode::kResourceExhausted, "has 16777216 bytes, want at most");
  // One whose directory claims less than it unpacks to.
  std::string liar = zip;
  const size_t entry = liar.find("PK\x01\x02");
  liar.replace(entry + 24, 4, std::string("\x10\0\0\0", 4));
  const auto archive = ZipArchive::Open(liar);
  ASSERT_TRUE(archive.ok()) << archive.status();
  size_t n_bytes = 0;
  const absl::Status status =
      archive->Unpack(archive->members()[0], 1 << 20, [&](std::string_view piece) {
        n_bytes += piece.size();
        return absl::OkStatus();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_LE(n_bytes, 16u);
}

TEST(ZipArchiveTest, RefusesMembersThatShareBytes) {
  std::string zip = MakeZip({{"first", std::string(100, 'a'), kZipDeflated},
                             {kMember, std::string(100, 'a'), kZipDeflated}});
  const size_t second = zip.find("PK\x01\x02", zip.find("PK\x01\x02") + 4);
  zip.replace(second + 42, 4, std::string(4, '\0'));
  ExpectRefused(zip, absl::StatusCode::kDataLoss, "overlap");
}

TEST(ZipArchiveTest, EndsWhereTheTakerSaysNo) {
  const std::string zip = MakeZip({{kMember, LongBytes(), kZipDeflated}});
  const auto archive = ZipArchive::Open(zip);
  int n_pieces = 0;
  const absl::Status status =
      archive->Unpack(archive->members()[0], 1 << 20, [&](std::string_view) {
        return ++n_pieces < 2 ? absl::OkStatus() : absl::CancelledError("enough");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(n_pieces, 2);
}

TEST(ZipArchiveTest, FindsEveryCutAndEveryFlippedByteThatMatters) {
  for (const uint16_t method : {uint16_t{0}, kZipDeflated}) {
    const std::string bytes = LongBytes().substr(5000, 300);
    const std::string zip = MakeZip({{kMember, bytes, method}});
    for (size_t size = 0; size < zip.size(); ++size) {
      ASSERT_FALSE(Read(std::string_view(zip).substr(0, size)).ok()) << size;
    }
    // Never other bytes as if they were the member's: fields that nothing depends on may change.
    for (size_t at = 0; at < zip.size(); ++at) {
      std::string flipped = zip;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x41);
      const auto read = Read(flipped);
      EXPECT_EQ(read.value_or(bytes), bytes) << at;
    }
  }
}

}  // namespace
}  // namespace fovea
