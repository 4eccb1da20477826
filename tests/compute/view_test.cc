#include "compute/view.h"

#include "compute/embedding.h"
#include "compute/linear.h"
#include "compute/qk_norm.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

TEST(ViewTest, RowsBeginWhereTheStridesSay) {
  std::vector<float> floats(60);
  const View whole(floats.data(), {5, 3, 4});
  EXPECT_TRUE(whole.is_contiguous());
  EXPECT_EQ(whole.size(), 60);
  EXPECT_EQ(whole.Rows(2, 3).As<float>(), floats.data() + 24);
  EXPECT_EQ(whole.Rows(2, 3).ShapeText(), "[3,3,4]");
  const ConstView heads = whole.WithStrides({4, 20, 1});
  EXPECT_FALSE(heads.is_contiguous());
  EXPECT_TRUE(heads.has_dense_rows());
  EXPECT_EQ(heads.Rows(2, 1).As<float>(), floats.data() + 8);
  const std::vector<std::byte> blocks(3 * 2 * 18);
  const ConstView quantized(DType::kQ4_0, blocks.data(), {3, 64});
  EXPECT_EQ(quantized.Rows(2, 1).As<std::byte>(), blocks.data() + 2 * 2 * 18);
}

TEST(ViewTest, ADimensionOfOneMayHaveAnyStride) {
  std::vector<float> floats(8);
  EXPECT_TRUE(View(floats.data(), {1, 8}).WithStrides({100, 1}).is_contiguous());
  EXPECT_TRUE(View(floats.data(), {8, 1}).WithStrides({1, 5}).has_dense_rows());
}

TEST(ViewTest, OpsNameTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 1);
  std::vector<float> memory(1000);
  float* const f = memory.data();
  auto* const half = reinterpret_cast<BFloat16*>(f);
  const auto expect = [](const absl::Status& status, const std::vector<std::string>& parts) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    for (const std::string& part : parts) {
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(part));
    }
  };
  expect(RmsNorm(*device, {.x = {f, {2, 8}}, .weight = {f, {7}}, .out = {f, {2, 8}}}),
         {"RmsNorm: weight", "[7]", "[8]"});
  expect(RmsNorm(*device, {.x = {f, {2, 8}}, .weight = View(half, {8}), .out = {f, {2, 8}}}),
         {"RmsNorm: weight", "BF16", "F32"});
  const auto qk_norm = [&](const View& keys, int64_t query_weight, int64_t key_weight) {
    return QkNorm(*device, {.queries = {f, {2, 3, 8}},
                            .keys = keys,
                            .query_weight = {f, {query_weight}},
                            .key_weight = {f, {key_weight}}});
  };
  expect(qk_norm({f, {2, 1, 6}}, 8, 8), {"QkNorm: keys", "[2,1,6]", "[2,any,8]"});
  expect(qk_norm({f, {3, 1, 8}}, 8, 8), {"QkNorm: keys", "[3,1,8]", "[2,any,8]"});
  expect(qk_norm({f, {2, 1, 8}}, 24, 8), {"QkNorm: query_weight", "[24]", "[8]"});
  expect(qk_norm({f, {2, 1, 8}}, 8, 6), {"QkNorm: key_weight", "[6]", "[8]"});
  expect(Rope(*device, {.x = {f, {2, 3, 7}}, .inverse_frequencies = {f, {3}}}),
         {"Rope: x", "[2,3,7]", "even"});
  expect(Rope(*device, {.x = {f, {2, 3, 8}}, .inverse_frequencies = {f, {8}}}),
         {"Rope: inverse_frequencies", "[8]", "[4]"});
  expect(SiluMul(*device, {.gate = {f, {2, 8}}, .up = {f, {8, 2}}, .out = {f, {2, 8}}}),
         {"SiluMul: up", "[8,2]", "[2,8]"});
  const std::vector<int32_t> ids = {1, 2};
  expect(Embedding(*device, {.table = {f, {9, 8}}, .ids = ids, .out = {f, {3, 8}}}),
         {"Embedding: out", "[3,8]", "[2,8]"});
  const auto linear = Linear::Create(*device, {.name = "blk.2", .weight = {f, {6, 8}}});
  ASSERT_TRUE(linear.ok()) << linear.status();
  expect((*linear)->Forward(*device, {f, {2, 7}}, false, {f, {2, 6}}),
         {"blk.2: x", "[2,7]", "[any,8]"});
  expect((*linear)->Forward(*device, {f, {2, 8}}, false, {f, {3, 6}}),
         {"blk.2: out", "[3,6]", "[2,6]"});
  expect(
      Linear::Create(*device, {.name = "blk.2", .weight = {f, {6, 8}}, .bias = {f, {8}}}).status(),
      {"blk.2: bias", "[8]", "[6]"});
}

}  // namespace
}  // namespace fovea::compute
