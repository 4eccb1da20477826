#include "compute/qk_norm.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class QkNormTest : public testing::TestWithParam<std::string> {};

struct Shape {
  int64_t n_tokens, n_heads, n_kv_heads, head_dim;
};

struct Normed {
  std::vector<float> queries, keys;
  bool operator==(const Normed&) const = default;
};

absl::StatusOr<Normed> NormOn(Device& device, const Shape& s, const std::vector<float>& queries,
                              const std::vector<float>& keys,
                              const std::vector<float>& query_weight,
                              const std::vector<float>& key_weight, float eps) {
  const Buffer q = ToDevice(device, queries);
  const Buffer k = ToDevice(device, keys);
  const Buffer q_weight = ToDevice(device, query_weight);
  const Buffer k_weight = ToDevice(device, key_weight);
  RETURN_IF_ERROR(QkNorm(device, {.queries = {q.data<float>(), {s.n_tokens, s.n_heads, s.head_dim}},
                                  .keys = {k.data<float>(), {s.n_tokens, s.n_kv_heads, s.head_dim}},
                                  .query_weight = {q_weight.data<float>(), {s.head_dim}},
                                  .key_weight = {k_weight.data<float>(), {s.head_dim}},
                                  .eps = eps}));
  return Normed{ToHost(device, q, queries.size()), ToHost(device, k, keys.size())};
}

std::vector<float> Part(const std::vector<float>& values, int64_t begin, int64_t n) {
  return {values.begin() + begin, values.begin() + begin + n};
}

TEST_P(QkNormTest, AgreesWithDoublePrecision) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 3);
  for (const auto& s : {Shape{1, 16, 8, 128}, Shape{3, 4, 2, 32}, Shape{100, 8, 8, 64},
                        Shape{2, 9, 3, 20}, Shape{1, 1, 1, 2}, Shape{5, 2, 1, 300}}) {
    const auto dim = static_cast<size_t>(s.head_dim);
    const float eps = 1e-6f;
    const std::vector<float> weights[2] = {RandomFloats(dim, 1), RandomFloats(dim, 2)};
    const std::vector<float> inputs[2] = {
        RandomFloats(static_cast<size_t>(s.n_tokens * s.n_heads) * dim, 3, 3.0f),
        RandomFloats(static_cast<size_t>(s.n_tokens * s.n_kv_heads) * dim, 4, 0.01f)};
    const absl::StatusOr<Normed> got =
        NormOn(*device, s, inputs[0], inputs[1], weights[0], weights[1], eps);
    ASSERT_TRUE(got.ok()) << got.status();
    for (const int which : {0, 1}) {
      const std::vector<float>& x = inputs[which];
      std::vector<double> expected(x.size()), tolerance(x.size());
      for (size_t begin = 0; begin < x.size(); begin += dim) {
        double sum = 0.0;
        for (size_t i = begin; i < begin + dim; ++i) sum += static_cast<double>(x[i]) * x[i];
        const double factor = 1.0 / std::sqrt(sum / static_cast<double>(dim) + eps);
        for (size_t i = begin; i < begin + dim; ++i) {
          expected[i] = x[i] * factor * weights[which][i - begin];
          // As in rms_norm_test.cc.
          tolerance[i] =
              kEpsilon * (std::sqrt(static_cast<double>(dim)) / 2.0 + 4.0) * std::abs(expected[i]) +
              1e-30;
        }
      }
      ExpectClose(which == 0 ? got->queries : got->keys, expected, tolerance,
                  StrCat(which == 0 ? "queries " : "keys ", s.n_tokens, "x", s.head_dim));
    }
  }
}

// What an answer's tokens are must not depend on who is beside it, nor on the prompt's length.
TEST_P(QkNormTest, ATokenIsTheSameAmongOthersAndWhateverTheThreads) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  MAKE_DEVICE_OR_SKIP(other, GetParam(), 3);
  const Shape s{1500, 4, 2, 96};
  const std::vector<float> queries = RandomFloats(static_cast<size_t>(1500 * 4 * 96), 5);
  const std::vector<float> keys = RandomFloats(static_cast<size_t>(1500 * 2 * 96), 6);
  const std::vector<float> weight = RandomFloats(96, 7);
  const absl::StatusOr<Normed> all = NormOn(*device, s, queries, keys, weight, weight, 1e-6f);
  ASSERT_TRUE(all.ok()) << all.status();
  const absl::StatusOr<Normed> by_others = NormOn(*other, s, queries, keys, weight, weight, 1e-6f);
  ASSERT_TRUE(by_others.ok()) << by_others.status();
  EXPECT_EQ(*by_others, *all);
  for (const int64_t token : {0, 1, 777, 1499}) {
    const absl::StatusOr<Normed> alone =
        NormOn(*device, {1, 4, 2, 96}, Part(queries, token * 384, 384),
               Part(keys, token * 192, 192), weight, weight, 1e-6f);
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ(alone->queries, Part(all->queries, token * 384, 384));
    EXPECT_EQ(alone->keys, Part(all->keys, token * 192, 192));
  }
}

TEST_P(QkNormTest, HeadsOfZerosStayZeroAndNoTokensAreNoWork) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const std::vector<float> zeros(40, 0.0f);
  const std::vector<float> weight(20, 2.0f);
  const absl::StatusOr<Normed> got =
      NormOn(*device, {1, 2, 2, 20}, zeros, zeros, weight, weight, 1e-6f);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->queries, zeros);
  EXPECT_EQ(got->keys, zeros);
  EXPECT_TRUE(NormOn(*device, {0, 2, 1, 20}, {}, {}, weight, weight, 1e-6f).ok());
}

INSTANTIATE_TEST_SUITE_P(Devices, QkNormTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
