#include "compute/index_queries.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class IndexQueriesTest : public testing::TestWithParam<std::string> {};

TEST_P(IndexQueriesTest, QueriesOfAKvHeadLieTogetherAndHaveItsNorm) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  struct Shape {
    int64_t n_queries, n_heads, n_kv_heads, head_dim, index_dim;
    bool is_scaled;
    int64_t first_axis = 0;
  };
  for (const Shape& s : {Shape{1, 9, 3, 64, 68, true}, Shape{5, 4, 2, 100, 104, true},
                         Shape{3, 6, 1, 33, 33, false}, Shape{2, 2, 2, 7, 40, false},
                         Shape{3, 9, 3, 64, 72, true, 68}, Shape{1, 4, 4, 20, 24, true, 20}}) {
    const int64_t group = s.n_heads / s.n_kv_heads;
    const int64_t n_lists = s.n_queries * group;
    std::vector<float> queries =
        RandomFloats(static_cast<size_t>(s.n_queries * s.n_heads * s.head_dim),
                     11 + static_cast<uint32_t>(s.head_dim));
    // A query of zeros, and one whose norm overflows.
    std::fill_n(queries.begin(), s.head_dim, 0.0f);
    queries[static_cast<size_t>(s.head_dim)] = 1e30f;
    std::vector<float> radii;
    for (int64_t h = 0; h < s.n_kv_heads; ++h) radii.push_back(3.5f + static_cast<float>(h));
    const Buffer from = ToDevice(*device, queries);
    const Buffer norms = ToDevice(*device, radii);
    const auto n_out = static_cast<size_t>(s.n_kv_heads * n_lists * s.index_dim);
    const Buffer out = ToDevice(*device, std::vector<float>(n_out, NAN));
    IndexQueriesArgs args{.queries = {from.data<float>(), {s.n_queries, s.n_heads, s.head_dim}},
                          .out = {out.data<float>(), {s.n_kv_heads, n_lists, s.index_dim}}};
    if (s.first_axis > 0) args.first_axis = s.first_axis, args.axis_value = 7.25f;
    if (s.is_scaled) args.radii = {norms.data<float>(), {s.n_kv_heads}};
    const absl::Status status = IndexQueries(*device, args);
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<float> got = ToHost(*device, out, n_out);
    for (int64_t h = 0; h < s.n_kv_heads; ++h) {
      for (int64_t list = 0; list < n_lists; ++list) {
        const float* const query =
            queries.data() + (list / group * s.n_heads + h * group + list % group) * s.head_dim;
        double norm2 = 0.0;
        for (int64_t d = 0; d < s.head_dim; ++d) norm2 += double{query[d]} * query[d];
        const bool ranks = norm2 > 0.0 && std::isfinite(static_cast<float>(norm2));
        const double scale =
            s.is_scaled && ranks ? radii[static_cast<size_t>(h)] / std::sqrt(norm2) : 1.0;
        for (int64_t d = 0; d < s.index_dim; ++d) {
          const bool is_axis = s.first_axis > 0 && d == s.first_axis + h;
          const double want = d < s.head_dim ? scale * query[d] : is_axis ? 7.25 : 0.0;
          ASSERT_NEAR(got[static_cast<size_t>((h * n_lists + list) * s.index_dim + d)], want,
                      static_cast<double>(s.head_dim) * kEpsilon * std::abs(want))
              << h << " " << list << " " << d;
        }
      }
    }
  }
}

TEST_P(IndexQueriesTest, ShapesThatDoNotFitAreRefused) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer buffer = ToDevice(*device, std::vector<float>(1000));
  const ConstView queries(buffer.data<float>(), {2, 6, 8});
  const auto run = [&](std::initializer_list<int64_t> out) {
    return IndexQueries(*device, {.queries = queries, .out = {buffer.data<float>(), out}});
  };
  for (const auto& out : {std::initializer_list<int64_t>{4, 3, 8}, {3, 2, 8}, {3, 4, 7}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(run(out)));
  }
  EXPECT_TRUE(
      absl::IsInvalidArgument(IndexQueries(*device, {.queries = queries,
                                                     .radii = {buffer.data<float>(), {2}},
                                                     .out = {buffer.data<float>(), {3, 4, 8}}})));
}

INSTANTIATE_TEST_SUITE_P(Devices, IndexQueriesTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
