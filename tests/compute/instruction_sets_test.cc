// Ops agree under every instruction set.
#include "compute/attention.h"
#include "compute/linear.h"
#include "compute/qk_norm.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "tests/compute/only_target.h"
#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

// `op` returns its result; all targets' results must agree within `relative` of the largest value.
// The tests of the ops prove the best target's result against double precision.
template <typename Op>
void ExpectAgreement(Op op, double relative) {
  const std::vector<float> best = op();
  double largest = 0.0;
  for (const float value : best) largest = std::max<double>(largest, std::abs(value));
  const std::vector<double> expected(best.begin(), best.end());
  const std::vector<double> tolerance(best.size(), relative * largest);
  WithEachInstructionSet([&](int64_t) { ExpectClose(op(), expected, tolerance); });
}

std::unique_ptr<Device> MakeDevice() {
  std::unique_ptr<Device> device = *Device::Create("cpu", 1);
  device->set_exact(false);  // the integer kernels are what differs most
  return device;
}

TEST(InstructionSetsTest, SeveralAreTestedOnX86) {
#if defined(__x86_64__)
  EXPECT_GE(hwy::SupportedAndGeneratedTargets().size(), 2u);
#else
  GTEST_SKIP() << "only x86-64 is known to have several";
#endif
}

TEST(InstructionSetsTest, LinearAgrees) {
  const auto device = MakeDevice();
  for (const DType dtype : kAllDTypes) {
    const int64_t in_features = Traits(dtype).block_size == 256 ? 512 : 96;
    const int64_t out_features = 48;
    const std::vector<std::byte> weight =
        Quantize(dtype, RandomFloats(static_cast<size_t>(in_features * out_features), 1));
    for (const int64_t n_tokens : {1, 2, 3, 4, 9, 23}) {
      SCOPED_TRACE(StrCat(Traits(dtype).name, " tokens ", n_tokens));
      const std::vector<float> x = RandomFloats(static_cast<size_t>(n_tokens * in_features), 2);
      ExpectAgreement(
          [&] {
            // The order of its weights is that of the instruction set of its first use.
            const auto linear = Linear::Create(
                *device,
                {.name = "test", .weight = {dtype, weight.data(), {out_features, in_features}}});
            EXPECT_TRUE(linear.ok()) << linear.status();
            std::vector<float> out(static_cast<size_t>(n_tokens * out_features));
            EXPECT_TRUE((*linear)
                            ->Forward(*device, {x.data(), {n_tokens, in_features}}, false,
                                      {out.data(), {n_tokens, out_features}})
                            .ok());
            return out;
          },
          // Orders of summation differ.
          kEpsilon * static_cast<double>(in_features));
    }
  }
}

// Steps of several answers are run together (answer/shared_model.h): nobody is to notice.
TEST(InstructionSetsTest, ARowAmongFewComesToWhatItComesToAlone) {
  const auto device = MakeDevice();
  for (const bool is_exact : {false, true}) {
    device->set_exact(is_exact);
    for (const DType dtype : kAllDTypes) {
      const int64_t block_size = Traits(dtype).block_size;
      for (const int64_t in_features : {int64_t{67}, int64_t{256}, int64_t{768}}) {
        if (in_features % block_size != 0) continue;
        const int64_t out_features = 48;
        const int64_t rank = 5;
        constexpr int64_t kMostTokens = 40;
        const auto weight =
            Quantize(dtype, RandomFloats(static_cast<size_t>(in_features * out_features), 1));
        const auto a = RandomFloats(static_cast<size_t>(rank * in_features), 3);
        const auto b = RandomFloats(static_cast<size_t>(out_features * rank), 4);
        const auto x = RandomFloats(static_cast<size_t>(kMostTokens * in_features), 2);
        WithEachInstructionSet([&](int64_t) {
          const auto linear = Linear::Create(
              *device, {.name = "test",
                        .weight = {dtype, weight.data(), {out_features, in_features}},
                        .lora_a = {a.data(), {rank, in_features}},
                        .lora_b = {b.data(), {out_features, rank}},
                        .lora_scale = 0.5f});
          ASSERT_TRUE(linear.ok()) << linear.status();
          (*linear)->PrepareSteps(*device);
          const auto compute = [&](int64_t first, int64_t n) {
            std::vector<float> out(static_cast<size_t>(n * out_features));
            const float* rows = x.data() + first * in_features;
            EXPECT_TRUE((*linear)
                            ->Forward(*device, {rows, {n, in_features}}, false,
                                      {out.data(), {n, out_features}})
                            .ok());
            return out;
          };
          const int64_t most_tokens = std::min(kMostTokens, (*linear)->max_rows_as_alone());
          EXPECT_GE(most_tokens, 12);
          std::vector<float> alone;
          for (int64_t t = 0; t < most_tokens; ++t) {
            const std::vector<float> row = compute(t, 1);
            alone.insert(alone.end(), row.begin(), row.end());
          }
          for (int64_t n = 2; n <= most_tokens; ++n) {
            const std::vector<float> together = compute(0, n);
            ASSERT_TRUE(std::equal(together.begin(), together.end(), alone.begin()))
                << Traits(dtype).name << ", " << in_features << " features, " << n << " rows"
                << (is_exact ? ", exact" : "");
          }
        });
      }
    }
  }
}

TEST(InstructionSetsTest, LinearIn8BitsAgrees) {
  const auto device = *Device::Create("cpu", 2, "int8");
  // [in, out]: parts of groups and of panels.
  for (const auto& [in_features, out_features] :
       {std::pair<int64_t, int64_t>{67, 130}, {192, 64}, {290, 20}}) {
    SCOPED_TRACE(StrCat("[", out_features, ",", in_features, "]"));
    const int64_t n_tokens = 45;
    const std::vector<float> weight =
        RandomFloats(static_cast<size_t>(in_features * out_features), 1);
    const std::vector<float> x = RandomFloats(static_cast<size_t>(n_tokens * in_features), 2);
    ExpectAgreement(
        [&] {
          const auto linear = Linear::Create(
              *device, {.name = "test", .weight = {weight.data(), {out_features, in_features}}});
          EXPECT_TRUE(linear.ok()) << linear.status();
          std::vector<float> out(static_cast<size_t>(n_tokens * out_features));
          EXPECT_TRUE((*linear)
                          ->Forward(*device, {x.data(), {n_tokens, in_features}}, false,
                                    {out.data(), {n_tokens, out_features}})
                          .ok());
          return out;
        },
        // Three groups at most; one rounding or two of each.
        kEpsilon * 4);
  }
}

TEST(InstructionSetsTest, AttentionAgrees) {
  const auto device = MakeDevice();
  for (const int64_t head_dim : {20, 64, 100}) {
    for (const int64_t n_queries : {1, 2, 40}) {
      SCOPED_TRACE(StrCat("dim ", head_dim, " queries ", n_queries));
      const int64_t n_keys = 130;
      const int64_t n_heads = 6;
      const int64_t n_kv_heads = 2;
      const std::vector<float> queries =
          RandomFloats(static_cast<size_t>(n_queries * n_heads * head_dim), 1);
      const std::vector<float> keys =
          RandomFloats(static_cast<size_t>(n_keys * n_kv_heads * head_dim), 2);
      const std::vector<float> values =
          RandomFloats(static_cast<size_t>(n_keys * n_kv_heads * head_dim), 3);
      const auto query_shape = {n_queries, n_heads, head_dim};
      const auto key_shape = {n_keys, n_kv_heads, head_dim};
      ExpectAgreement(
          [&] {
            // Output and lse in one.
            std::vector<float> out(queries.size() + static_cast<size_t>(n_queries * n_heads));
            EXPECT_TRUE(
                Attention(*device, {.queries = {queries.data(), query_shape},
                                    .keys = {keys.data(), key_shape},
                                    .values = {values.data(), key_shape},
                                    .scale = 0.125f,
                                    .output = {out.data(), query_shape},
                                    .lse = {out.data() + queries.size(), {n_queries, n_heads}}})
                    .ok());
            return out;
          },
          kEpsilon * static_cast<double>(head_dim));
      std::vector<BFloat16> half_keys(keys.size()), half_values(values.size());
      FloatToBFloat16(keys.data(), half_keys.data(), keys.size());
      FloatToBFloat16(values.data(), half_values.data(), values.size());
      ExpectAgreement(
          [&] {
            std::vector<float> out(queries.size());
            EXPECT_TRUE(Attention(*device, {.queries = {queries.data(), query_shape},
                                            .keys = {half_keys.data(), key_shape},
                                            .values = {half_values.data(), key_shape},
                                            .scale = 0.125f,
                                            .output = {out.data(), query_shape}})
                            .ok());
            return out;
          },
          kEpsilon * static_cast<double>(head_dim));
    }
  }
}

TEST(InstructionSetsTest, ElementwiseOpsAgree) {
  const auto device = MakeDevice();
  const int64_t n = 107;
  const std::vector<float> x = RandomFloats(static_cast<size_t>(n), 1, 4.0f);
  const std::vector<float> weight = RandomFloats(static_cast<size_t>(n), 2);
  ExpectAgreement(
      [&] {
        std::vector<float> out(x.size());
        EXPECT_TRUE(RmsNorm(*device, {.x = {x.data(), {1, n}},
                                      .weight = {weight.data(), {n}},
                                      .out = {out.data(), {1, n}}})
                        .ok());
        return out;
      },
      kEpsilon * 16);
  ExpectAgreement(
      [&] {
        std::vector<float> out(x.size());
        EXPECT_TRUE(SiluMul(*device, {.gate = {x.data(), {1, n}},
                                      .up = {weight.data(), {1, n}},
                                      .out = {out.data(), {1, n}}})
                        .ok());
        return out;
      },
      kEpsilon * 8);
  ExpectAgreement(
      [&] {
        std::vector<float> queries = x;
        std::vector<float> keys = weight;
        EXPECT_TRUE(QkNorm(*device, {.queries = {queries.data(), {1, 1, n}},
                                     .keys = {keys.data(), {1, 1, n}},
                                     .query_weight = {weight.data(), {n}},
                                     .key_weight = {x.data(), {n}}})
                        .ok());
        queries.insert(queries.end(), keys.begin(), keys.end());
        return queries;
      },
      kEpsilon * 16);
  const std::vector<float> frequencies = RopeInverseFrequencies(100, 10000.0f, {});
  ExpectAgreement(
      [&] {
        std::vector<float> rotated(x.begin(), x.begin() + 100);
        EXPECT_TRUE(Rope(*device, {.x = {rotated.data(), {1, 1, 100}},
                                   .inverse_frequencies = {frequencies.data(), {50}},
                                   .first_position = 77})
                        .ok());
        return rotated;
      },
      kEpsilon * 4);
}

}  // namespace
}  // namespace fovea::compute
