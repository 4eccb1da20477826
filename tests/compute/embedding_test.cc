#include "compute/embedding.h"

#include <tuple>

#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

class EmbeddingTest : public testing::TestWithParam<std::tuple<std::string, DType>> {};

TEST_P(EmbeddingTest, RowsAreThoseOfTheTable) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  const int64_t vocab_size = 50;
  const int64_t hidden_size = 96;
  const std::vector<std::byte> table =
      Quantize(dtype, RandomFloats(static_cast<size_t>(vocab_size * hidden_size), 1));
  const size_t row_bytes = *RowBytes(dtype, hidden_size);
  std::vector<int32_t> ids = {49, 0, 7, 7};
  for (int32_t i = 0; i < 60; ++i) ids.push_back(i * 31 % 50);
  const size_t n = ids.size() * static_cast<size_t>(hidden_size);
  const Buffer on_device = ToDevice(*device, table);
  const Buffer out = ToDevice(*device, std::vector<float>(n, NAN));
  const absl::Status status = Embedding(
      *device, {.table = {dtype, on_device.data<void>(), {vocab_size, hidden_size}},
                .ids = ids,
                .out = {out.data<float>(), {static_cast<int64_t>(ids.size()), hidden_size}}});
  ASSERT_TRUE(status.ok()) << status;
  std::vector<float> expected(n);
  for (size_t t = 0; t < ids.size(); ++t) {
    DequantizeRow(dtype, table.data() + static_cast<size_t>(ids[t]) * row_bytes, hidden_size,
                  expected.data() + t * static_cast<size_t>(hidden_size));
  }
  EXPECT_EQ(ToHost(*device, out, n), expected);
}

TEST_P(EmbeddingTest, NamesTheFirstIdOutsideTheVocabulary) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 1);
  const Buffer table = ToDevice(*device, std::vector<std::byte>(10 * 200));
  const Buffer out = ToDevice(*device, std::vector<float>(32 * 4));
  for (const int32_t bad : {-1, 10, 1 << 30}) {
    const std::vector<int32_t> ids = {0, 9, bad, 11};
    const absl::Status status = Embedding(*device, {.table = {dtype, table.data<void>(), {10, 32}},
                                                    .ids = ids,
                                                    .out = {out.data<float>(), {4, 32}}});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr(StrCat("id ", bad, " at position 2")));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingTest,
                         testing::Combine(testing::Values("cpu", "cuda"),
                                          testing::Values(DType::kF32, DType::kF16, DType::kBF16,
                                                          DType::kQ4_0, DType::kQ4_1,
                                                          DType::kQ8_0)),
                         [](const auto& info) {
                           return StrCat(std::get<0>(info.param), "_",
                                         Traits(std::get<1>(info.param)).name);
                         });

}  // namespace
}  // namespace fovea::compute
