#include "model/weights/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "file_writers.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string SmallFile() {
  GgufWriter writer;
  writer.U32("count", 7);
  writer.String("name", "größer");
  writer.Strings("words", {"a", "", "ccc"});
  writer.Array<float>("numbers", GgufWriter::kF32, {1.5f, -2.0f});
  writer.Tensor("first", {2, 4}, 0, FloatBytes({1, 2, 3, 4, 5, 6, 7, 8}));
  writer.Tensor("second", {8}, 0, FloatBytes({8, 7, 6, 5, 4, 3, 2, 1}));
  return writer.Finish();
}

void ExpectRefused(const std::string& bytes, absl::StatusCode code, const std::string& message) {
  const auto file = GgufFile::Parse(bytes);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), code) << file.status();
  EXPECT_THAT(file.status().ToString(), HasSubstr(message));
}

TEST(GgufFileTest, ReadsMetadataByType) {
  const std::string bytes = SmallFile();
  const auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->Integer("count"), 7);
  EXPECT_EQ(*file->Number("count"), 7.0);
  EXPECT_EQ(*file->String("name"), "größer");
  EXPECT_THAT(*file->Strings("words"), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(*file->Numbers("numbers"), ElementsAre(1.5f, -2.0f));
  EXPECT_TRUE(file->IsArray("words"));
  EXPECT_FALSE(file->IsArray("name"));
  EXPECT_EQ(file->Integer("absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file->Integer("name").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Integers("numbers").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Strings("numbers").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Bool("count").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GgufFileTest, TensorsHaveRowMajorShapesAndTheirBytes) {
  const std::string bytes = SmallFile();
  const auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 2u);
  const StoredTensor& first = file->tensors()[0];
  EXPECT_EQ(first.name, "first");
  EXPECT_THAT(first.shape, ElementsAre(2, 4));
  EXPECT_EQ(first.size_bytes, 32u);
  EXPECT_EQ(std::memcmp(first.data, FloatBytes({1, 2, 3, 4, 5, 6, 7, 8}).data(), 32), 0);
  EXPECT_EQ(std::memcmp(file->tensors()[1].data, FloatBytes({8}).data(), 4), 0);
}

TEST(GgufFileTest, RefusesFilesTruncatedAnywhere) {
  const std::string bytes = SmallFile();
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A copy of its own on the heap: address sanitizers see reads behind its end.
    const std::string cut = bytes.substr(0, size);
    const auto file = GgufFile::Parse(cut);
    ASSERT_FALSE(file.ok()) << "of " << bytes.size() << " bytes the first " << size;
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
  }
}

TEST(GgufFileTest, TruncationNamesTheTensorAndBothSizes) {
  const std::string bytes = SmallFile();
  ExpectRefused(bytes.substr(0, bytes.size() - 1), absl::StatusCode::kInvalidArgument,
                "truncated: second ends at byte " + std::to_string(bytes.size()) +
                    ", the file has " + std::to_string(bytes.size() - 1));
}

TEST(GgufFileTest, SurvivesAnyFlippedByte) {
  const std::string bytes = SmallFile();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const auto file = GgufFile::Parse(damaged);
      if (!file.ok()) continue;
      // What it accepts lies within the file.
      for (const StoredTensor& tensor : file->tensors()) {
        const auto* begin = reinterpret_cast<const char*>(tensor.data);
        EXPECT_GE(begin, damaged.data());
        EXPECT_LE(begin + tensor.size_bytes, damaged.data() + damaged.size());
      }
    }
  }
}

TEST(GgufFileTest, RefusesAbsurdCountsWithoutAllocating) {
  const GgufWriter writer;
  ExpectRefused(writer.Finish(uint64_t{1} << 60, 0), absl::StatusCode::kInvalidArgument,
                "1152921504606846976 tensors");
  ExpectRefused(writer.Finish(0, ~uint64_t{0}), absl::StatusCode::kInvalidArgument,
                "18446744073709551615 metadata values");
  for (const uint32_t type : {0u, 8u, 9u, 12u}) {
    GgufWriter array;
    array.Value("array", 9, Bytes(type) + Bytes(~uint64_t{0}));
    ExpectRefused(array.Finish(), absl::StatusCode::kInvalidArgument, "array");
  }
  GgufWriter text;
  text.Value("text", 8, Bytes(~uint64_t{0} - 3));
  ExpectRefused(text.Finish(), absl::StatusCode::kInvalidArgument, "truncated or damaged: text");
}

TEST(GgufFileTest, RefusesArraysNestedWithoutEnd) {
  GgufWriter writer;
  std::string value;
  for (int i = 0; i < 100000; ++i) value += Bytes<uint32_t>(9) + Bytes<uint64_t>(1);
  writer.Value("deep", 9, value);
  ExpectRefused(writer.Finish(), absl::StatusCode::kInvalidArgument, "nested too deep");
}

TEST(GgufFileTest, RefusesSizesThatOverflow) {
  GgufWriter product;
  product.TensorInfo("huge", {int64_t{1} << 31, int64_t{1} << 31, int64_t{1} << 31}, 0, 0);
  ExpectRefused(product.Finish(), absl::StatusCode::kInvalidArgument, "huge: shape");
  GgufWriter end;
  end.TensorInfo("late", {8}, 0, ~uint64_t{0} - 31);
  ExpectRefused(end.Finish(), absl::StatusCode::kInvalidArgument, "overflow");
  GgufWriter negative;
  negative.TensorInfo("negative", {-1}, 0, 0);
  ExpectRefused(negative.Finish(), absl::StatusCode::kInvalidArgument, "negative: a dimension of");
}

TEST(GgufFileTest, RefusesOverlapsDuplicatesAndMisalignment) {
  const std::string data = FloatBytes(std::vector<float>(32, 1.0f));
  GgufWriter overlap;
  overlap.Tensor("first", {32}, 0, data);
  overlap.TensorInfo("inside", {8}, 0, 32);
  ExpectRefused(overlap.Finish(), absl::StatusCode::kInvalidArgument,
                "first (bytes 0 to 128) and inside (from 32) overlap");
  GgufWriter twice;
  twice.Tensor("same", {32}, 0, data);
  twice.Tensor("same", {32}, 0, data);
  ExpectRefused(twice.Finish(), absl::StatusCode::kInvalidArgument, "tensor same occurs twice");
  GgufWriter keys;
  keys.U32("key", 1);
  keys.U32("key", 2);
  ExpectRefused(keys.Finish(), absl::StatusCode::kInvalidArgument, "key occurs twice");
  GgufWriter misaligned;
  misaligned.Tensor("first", {32}, 0, data);
  misaligned.TensorInfo("odd", {8}, 0, 4);
  ExpectRefused(misaligned.Finish(), absl::StatusCode::kInvalidArgument, "no multiple of the");
  GgufWriter alignment;
  alignment.U32("general.alignment", 24);
  ExpectRefused(alignment.Finish(), absl::StatusCode::kInvalidArgument, "want a power of two");
}

TEST(GgufFileTest, NamesElementTypesThatItDoesNotKnow) {
  GgufWriter quantised;
  quantised.TensorInfo("blk.0.ffn_up.weight", {256}, 16, 0);
  ExpectRefused(quantised.Finish(), absl::StatusCode::kUnimplemented,
                "blk.0.ffn_up.weight: element type IQ2_XXS; fovea reads F32");
  for (const auto& [type, name] : {std::pair{10, "Q2_K"},
                                   {11, "Q3_K"},
                                   {20, "IQ4_NL"},
                                   {23, "IQ4_XS"},
                                   {34, "TQ1_0"},
                                   {35, "TQ2_0"}}) {
    GgufWriter other;
    other.TensorInfo("w", {256}, static_cast<uint32_t>(type), 0);
    ExpectRefused(other.Finish(), absl::StatusCode::kUnimplemented, StrCat("element type ", name));
  }
  GgufWriter unknown;
  unknown.TensorInfo("x", {256}, 4711, 0);
  ExpectRefused(unknown.Finish(), absl::StatusCode::kUnimplemented, "x: element type number 4711");
}

TEST(GgufFileTest, RefusesRowsThatAreNoWholeBlocks) {
  GgufWriter writer;
  writer.TensorInfo("ragged", {4, 33}, 8, 0);
  ExpectRefused(writer.Finish(), absl::StatusCode::kInvalidArgument, "ragged: ");
}

TEST(GgufFileTest, RefusesTextThatIsNoUtf8) {
  GgufWriter name;
  name.TensorInfo("bad\xff", {8}, 0, 0);
  ExpectRefused(name.Finish(), absl::StatusCode::kInvalidArgument, "bad\\xff");
  GgufWriter key;
  key.U32("\xc3", 1);
  ExpectRefused(key.Finish(), absl::StatusCode::kInvalidArgument, "not UTF-8");
  GgufWriter value;
  value.String("author", "\xed\xa0\x80");  // a surrogate
  value.Strings("tokens", {"good", "\xc0\xaf"});
  const std::string bytes = value.Finish();
  const auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();  // harmless where nobody reads it
  EXPECT_EQ(file->String("author").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(file->Strings("tokens").status().ToString(), HasSubstr("tokens[1]"));
}

TEST(GgufFileTest, NamesOtherVersionsAndFormats) {
  std::string bytes = SmallFile();
  bytes[4] = 1;
  ExpectRefused(bytes, absl::StatusCode::kUnimplemented, "GGUF version 1");
  bytes[4] = 0;
  bytes[7] = 3;
  ExpectRefused(bytes, absl::StatusCode::kUnimplemented, "big-endian");
  ExpectRefused("PK\x03\x04 and so on", absl::StatusCode::kInvalidArgument, "not a GGUF file");
}

TEST(GgufFileTest, ReadsVersion2) {
  std::string bytes = SmallFile();
  bytes[4] = 2;
  const auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 2u);
}

}  // namespace
}  // namespace fovea::model
