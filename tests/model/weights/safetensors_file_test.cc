#include "model/weights/safetensors_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "file_writers.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SafetensorsFileTest : public testing::Test {
 protected:
  void ExpectRefused(std::string_view bytes, absl::StatusCode code, const std::string& message) {
    const auto file = SafetensorsFile::Open(folder_.Write("x.safetensors", bytes));
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), code) << file.status();
    EXPECT_THAT(file.status().ToString(), HasSubstr(message));
    EXPECT_THAT(file.status().ToString(), HasSubstr("x.safetensors"));
  }
  TempFolder folder_;
};

TEST_F(SafetensorsFileTest, ReadsNamesShapesAndBytes) {
  const auto file = SafetensorsFile::Open(
      folder_.Write("x.safetensors",
                    SafetensorsOf({{"b", {2, 2}, {1, 2, 3, 4}}, {"a", {}, {5}}, {"c", {0}, {}}})));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const StoredTensor& a = (*file)->tensors()[0];
  const StoredTensor& b = (*file)->tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_THAT(a.shape, ElementsAre());
  EXPECT_EQ(a.size_bytes, 4u);
  EXPECT_THAT(b.shape, ElementsAre(2, 2));
  EXPECT_EQ(std::memcmp(b.data, FloatBytes({1, 2, 3, 4}).data(), 16), 0);
  EXPECT_TRUE((*file)->Contains("c"));
  EXPECT_FALSE((*file)->Contains("d"));
}

TEST_F(SafetensorsFileTest, RefusesFilesTruncatedAnywhere) {
  const std::string bytes = SafetensorsOf({{"b", {2, 2}, {1, 2, 3, 4}}, {"a", {1}, {5}}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    ExpectRefused(std::string_view(bytes).substr(0, size), absl::StatusCode::kInvalidArgument,
                  "truncated: ");
  }
}

TEST_F(SafetensorsFileTest, SurvivesAnyFlippedByte) {
  const std::string bytes = SafetensorsOf({{"b", {2, 2}, {1, 2, 3, 4}}, {"a", {1}, {5}}});
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x04, 0x80}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const auto file = SafetensorsFile::Open(folder_.Write("x.safetensors", damaged));
      if (!file.ok()) continue;
      size_t n_bytes = 0;
      for (const StoredTensor& tensor : (*file)->tensors()) n_bytes += tensor.size_bytes;
      EXPECT_LE(n_bytes, 20u);
    }
  }
}

TEST_F(SafetensorsFileTest, RefusesAHugeHeader) {
  ExpectRefused(Bytes(~uint64_t{0}) + "{}", absl::StatusCode::kInvalidArgument,
                "a header of 18446744073709551615 bytes");
  ExpectRefused(Bytes<uint64_t>(100'000'001) + "{}", absl::StatusCode::kInvalidArgument,
                "the limit is 100000000");
  ExpectRefused(Bytes<uint64_t>(1000) + "{}", absl::StatusCode::kInvalidArgument,
                "truncated: the header ends at byte 1008, the file has 10");
}

TEST_F(SafetensorsFileTest, RefusesHeadersThatAreNoJsonObject) {
  ExpectRefused(Safetensors("[]", ""), absl::StatusCode::kInvalidArgument, "want a JSON object");
  ExpectRefused(Safetensors("{", ""), absl::StatusCode::kInvalidArgument, "no valid JSON");
  ExpectRefused(Safetensors("{\"a\xff\": 1}", ""), absl::StatusCode::kInvalidArgument,
                "no valid JSON");
  ExpectRefused(Safetensors(std::string(100000, '['), ""), absl::StatusCode::kInvalidArgument,
                "nested deeper");
  ExpectRefused(Safetensors("{\"a\": 1}", ""), absl::StatusCode::kInvalidArgument,
                "a: want a JSON object");
}

TEST_F(SafetensorsFileTest, RefusesANameTwice) {
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  ExpectRefused(Safetensors("{" + a + "," + a + "}", FloatBytes({1})),
                absl::StatusCode::kInvalidArgument, "key a occurs twice");
}

TEST_F(SafetensorsFileTest, RefusesOverlaps) {
  ExpectRefused(Safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                      "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                            FloatBytes({1, 2, 3})),
                absl::StatusCode::kInvalidArgument, "a (bytes 0 to 8) and b (from 4) overlap");
}

TEST_F(SafetensorsFileTest, RefusesSizesThatDoNotFitTheShape) {
  const auto with = [](std::string_view shape, std::string_view offsets) {
    return Safetensors(R"({"a":{"dtype":"F32","shape":)" + std::string(shape) +
                           R"(,"data_offsets":)" + std::string(offsets) + "}}",
                       FloatBytes({1, 2}));
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(with("[3]", "[0,8]"), kInvalid, "a: 8 bytes, a shape of [3] of type F32 wants 12");
  ExpectRefused(with("[4611686018427387904,4]", "[0,8]"), kInvalid, "a: ");
  ExpectRefused(with("[-2]", "[0,8]"), kInvalid, "a: shape");
  ExpectRefused(with("[1.5]", "[0,8]"), kInvalid, "a: shape");
  ExpectRefused(with("\"2\"", "[0,8]"), kInvalid, "a: shape");
  ExpectRefused(with("[2]", "[8,0]"), kInvalid, "a: data_offsets");
  ExpectRefused(with("[2]", "[0]"), kInvalid, "a: data_offsets");
  ExpectRefused(with("[2]", "[0,18446744073709551615]"), kInvalid, "a: data_offsets");
  ExpectRefused(with("[2]", "[9223372036854775799,9223372036854775807]"), kInvalid, "a ");
}

TEST_F(SafetensorsFileTest, NamesElementTypesThatItDoesNotKnow) {
  ExpectRefused(
      Safetensors(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", Bytes<int64_t>(1)),
      absl::StatusCode::kUnimplemented, "a: element type 'I64'");
}

}  // namespace
}  // namespace fovea::model
