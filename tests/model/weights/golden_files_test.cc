// Files that the published packages gguf and safetensors wrote (data/make_goldens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "model/weights/checkpoint.h"
#include "model/weights/gguf_file.h"
#include "model/weights/safetensors_file.h"

namespace fovea::model {
namespace {

using testing::ElementsAre;

const std::string kData = FOVEA_SOURCE_DIR "/tests/model/weights/data/";

template <typename T>
std::vector<float> Dequantised(const T& tensor) {
  const int64_t n_columns = tensor.shape.back();
  int64_t n_rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) n_rows *= tensor.shape[i];
  std::vector<float> values(static_cast<size_t>(n_rows * n_columns));
  const size_t row_bytes = tensor.size_bytes / static_cast<size_t>(n_rows);
  for (int64_t row = 0; row < n_rows; ++row) {
    compute::DequantizeRow(tensor.dtype, tensor.data + row * row_bytes, n_columns,
                           values.data() + row * n_columns);
  }
  return values;
}

class TypesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto mapped = MappedFile::Open(kData + "types.gguf");
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    mapped_ = *std::move(mapped);
    auto gguf = GgufFile::Parse(mapped_->bytes());
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    gguf_ = *std::move(gguf);
    auto safetensors = SafetensorsFile::Open(kData + "types.safetensors");
    ASSERT_TRUE(safetensors.ok()) << safetensors.status();
    safetensors_ = *std::move(safetensors);
  }
  const StoredTensor& Stored(const std::string& name) const {
    for (const StoredTensor& tensor : safetensors_->tensors()) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << name;
    static const StoredTensor none;
    return none;
  }
  std::unique_ptr<MappedFile> mapped_;
  GgufFile gguf_;
  std::unique_ptr<SafetensorsFile> safetensors_;
};

TEST_F(TypesTest, MetadataOfEveryTypeReadsAsWritten) {
  EXPECT_EQ(*gguf_.Integer("test.uint8"), 200);
  EXPECT_EQ(*gguf_.Integer("test.int8"), -100);
  EXPECT_EQ(*gguf_.Integer("test.uint16"), 60000);
  EXPECT_EQ(*gguf_.Integer("test.int16"), -30000);
  EXPECT_EQ(*gguf_.Integer("test.uint32"), 4000000000);
  EXPECT_EQ(*gguf_.Integer("test.int32"), -2000000000);
  EXPECT_EQ(gguf_.Integer("test.uint64").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*gguf_.Integer("test.int64"), -(int64_t{1} << 62));
  EXPECT_EQ(*gguf_.Number("test.float32"), 0.1f);
  EXPECT_EQ(*gguf_.Number("test.float64"), 0.1);
  EXPECT_TRUE(*gguf_.Bool("test.bool"));
  EXPECT_EQ(*gguf_.String("test.string"), "naïve ▁ 🦊");
  EXPECT_THAT(*gguf_.Strings("test.strings"), ElementsAre("", "a", "▁the", "Ġthe"));
  EXPECT_THAT(*gguf_.Integers("test.integers"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*gguf_.Numbers("test.floats"), ElementsAre(0.5f, -0.25f));
}

TEST_F(TypesTest, EveryElementTypeDequantisesAsTheGgufPackageDoes) {
  ASSERT_EQ(gguf_.tensors().size(), std::size(compute::kAllDTypes));
  for (const StoredTensor& tensor : gguf_.tensors()) {
    EXPECT_EQ(compute::Traits(tensor.dtype).name, tensor.name);
    if (compute::Traits(tensor.dtype).block_size == 256) {
      EXPECT_THAT(tensor.shape, ElementsAre(2, 512));
    } else {
      EXPECT_THAT(tensor.shape, ElementsAre(3, 64));
    }
    const std::vector<float> values = Dequantised(tensor);
    const std::vector<float> expected = Dequantised(Stored("expected." + tensor.name));
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); ++i) {
      // One rounding of a multiplication and an addition may be fused.
      EXPECT_NEAR(values[i], expected[i], 1e-6f * std::abs(expected[i])) << tensor.name << " " << i;
    }
  }
}

TEST_F(TypesTest, SafetensorsOfHalfPrecisionAreTheFloatsRounded) {
  const std::vector<float> floats = Dequantised(Stored("F32"));
  EXPECT_EQ(floats, Dequantised(Stored("expected.F32")));
  EXPECT_EQ(Dequantised(Stored("F16")), Dequantised(Stored("expected.F16")));
  EXPECT_EQ(Dequantised(Stored("BF16")), Dequantised(Stored("expected.BF16")));
}

TEST(ConvertedModelTest, GgufAndSafetensorsAreTheSameModel) {
  const auto gguf = Checkpoint::Open(kData + "llama.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const auto folder = Checkpoint::Open(kData + "llama");
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_EQ((*gguf)->tensors().size(), (*folder)->tensors().size());
  for (const Tensor& tensor : (*folder)->tensors()) {
    auto other = (*gguf)->Find(tensor.name, tensor.shape);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ((*other)->dtype, tensor.dtype);
    ASSERT_EQ((*other)->size_bytes, tensor.size_bytes);
    EXPECT_EQ(std::memcmp((*other)->data, tensor.data, tensor.size_bytes), 0) << tensor.name;
  }
  EXPECT_EQ((*gguf)->Fingerprint(), (*folder)->Fingerprint());
}

}  // namespace
}  // namespace fovea::model
