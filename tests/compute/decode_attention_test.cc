#include "compute/decode_attention.h"

#include "base/float16.h"
#include "compute/attention.h"
#include "compute/rope.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

struct Shape {
  int64_t n_heads, n_kv_heads, head_dim, room;
  bool in_bf16, rotates;
};

class DecodeAttentionTest : public testing::TestWithParam<std::string> {};

// Token after token, it is the softmax over all that came before: the ops of a prompt, in float32
// on a CPU, are the reference.
TEST_P(DecodeAttentionTest, AttendsToAllTokensBeforeAndItself) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  MAKE_DEVICE_OR_SKIP(cpu, "cpu", 1);
  for (const Shape& s : {Shape{9, 3, 64, 40, false, true}, Shape{9, 3, 64, 700, true, true},
                         Shape{4, 4, 100, 300, false, true}, Shape{8, 1, 128, 5000, true, true},
                         Shape{6, 2, 80, 130, true, false}, Shape{2, 1, 6, 12, false, true},
                         Shape{16, 2, 256, 64, true, true}}) {
    const int64_t n_tokens = std::min<int64_t>(s.room, 300);
    const auto kv_size = static_cast<size_t>(s.n_kv_heads * s.head_dim);
    const auto q_size = static_cast<size_t>(s.n_heads * s.head_dim);
    const std::vector<float> q = RandomFloats(static_cast<size_t>(n_tokens) * q_size, 1);
    const std::vector<float> k = RandomFloats(static_cast<size_t>(n_tokens) * kv_size, 2);
    const std::vector<float> v = RandomFloats(static_cast<size_t>(n_tokens) * kv_size, 3);
    const std::vector<float> frequencies = RopeInverseFrequencies(s.head_dim, 10000.0f, {});
    const int32_t first_position = 17;
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));

    // All tokens at once.
    std::vector<float> rotated_q = q, rotated_k = k, stored_v = v, expected(q.size()),
                       expected_lse(static_cast<size_t>(n_tokens * s.n_heads));
    const View q_view(rotated_q.data(), {n_tokens, s.n_heads, s.head_dim});
    const View k_view(rotated_k.data(), {n_tokens, s.n_kv_heads, s.head_dim});
    for (const View& x : {q_view, k_view}) {
      if (!s.rotates) break;
      ASSERT_TRUE(Rope(*cpu, {.x = x,
                              .inverse_frequencies = {frequencies.data(), {s.head_dim / 2}},
                              .first_position = first_position})
                      .ok());
    }
    if (s.in_bf16) {
      for (float& x : rotated_k) x = static_cast<float>(BFloat16(x));
      for (float& x : stored_v) x = static_cast<float>(BFloat16(x));
    }
    ASSERT_TRUE(Attention(*cpu, {.queries = q_view,
                                 .keys = k_view,
                                 .values = {stored_v.data(), {n_tokens, s.n_kv_heads, s.head_dim}},
                                 .scale = scale,
                                 .causal = true,
                                 .output = {expected.data(), {n_tokens, s.n_heads, s.head_dim}},
                                 .lse = {expected_lse.data(), {n_tokens, s.n_heads}}})
                    .ok());

    const DType dtype = s.in_bf16 ? DType::kBF16 : DType::kF32;
    const auto room_bytes =
        static_cast<size_t>(s.room) * kv_size * (s.in_bf16 ? sizeof(BFloat16) : sizeof(float));
    const Buffer keys = *device->Allocate(room_bytes);
    const Buffer values = *device->Allocate(room_bytes);
    const Buffer on_device = ToDevice(*device, frequencies);
    const Buffer rotated = *device->Allocate(q_size * sizeof(float));
    const Buffer output = *device->Allocate(q_size * sizeof(float));
    const Buffer lse = *device->Allocate(static_cast<size_t>(s.n_heads) * sizeof(float));
    for (int64_t t = 0; t < n_tokens; ++t) {
      const auto row_of = [&](const std::vector<float>& all, size_t size) {
        const auto begin = all.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(t) * size);
        return std::vector<float>(begin, begin + static_cast<ptrdiff_t>(size));
      };
      const Buffer query = ToDevice(*device, row_of(q, q_size));
      const Buffer key = ToDevice(*device, row_of(k, kv_size));
      const Buffer value = ToDevice(*device, row_of(v, kv_size));
      const auto position = static_cast<int32_t>(t);
      const Buffer place =
          ToDevice(*device, std::vector<int32_t>{position, first_position + position});
      const absl::Status status = DecodeAttention(
          *device,
          {.query = {query.data<float>(), {s.n_heads, s.head_dim}},
           .rotated = {rotated.data<float>(), {s.n_heads, s.head_dim}},
           .key = {key.data<float>(), {s.n_kv_heads, s.head_dim}},
           .value = {value.data<float>(), {s.n_kv_heads, s.head_dim}},
           .keys = {dtype, keys.data<void>(), {s.room, s.n_kv_heads, s.head_dim}},
           .values = {dtype, values.data<void>(), {s.room, s.n_kv_heads, s.head_dim}},
           .place = place.data<TokenPlace>(),
           .inverse_frequencies =
               s.rotates ? ConstView(on_device.data<float>(), {s.head_dim / 2}) : ConstView(),
           .scale = scale,
           .output = {output.data<float>(), {s.n_heads, s.head_dim}},
           .lse = {lse.data<float>(), {s.n_heads}}});
      ASSERT_TRUE(status.ok()) << status;
      // In bfloat16 a rotated key may lie on the other side of a tie.
      const double tolerance = s.in_bf16 ? 2e-3 : 2e-5;
      const auto expect_row = [&](const Buffer& actual, const std::vector<float>& all, size_t size,
                                  const char* what) {
        const std::vector<float> row = row_of(all, size);
        ExpectClose(
            ToHost(*device, actual, size), {row.begin(), row.end()},
            std::vector<double>(size, tolerance),
            StrCat(what, " of token ", t, ", ", s.n_heads, "/", s.n_kv_heads, " x ", s.head_dim));
      };
      expect_row(rotated, rotated_q, q_size, "query");
      expect_row(output, expected, q_size, "output");
      expect_row(lse, expected_lse, static_cast<size_t>(s.n_heads), "lse");
      if (HasFailure()) return;
    }
  }
}

TEST_P(DecodeAttentionTest, RefusesWhatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer b = *device->Allocate(size_t{1} << 16);
  const View heads(b.data<float>(), {4, 8});
  DecodeAttentionArgs args{.query = heads,
                           .rotated = heads,
                           .key = {b.data<float>(), {2, 8}},
                           .value = {b.data<float>(), {2, 8}},
                           .keys = {b.data<float>(), {16, 2, 8}},
                           .values = {b.data<float>(), {16, 2, 8}},
                           .place = b.data<TokenPlace>(),
                           .inverse_frequencies = {},
                           .output = heads};
  args.values = {b.data<BFloat16>(), {16, 2, 8}};
  EXPECT_THAT(std::string(DecodeAttention(*device, args).message()), testing::HasSubstr("values"));
  args.values = args.keys;
  args.query = {b.data<float>(), {3, 8}};
  args.rotated = args.output = {b.data<float>(), {3, 8}};
  EXPECT_THAT(std::string(DecodeAttention(*device, args).message()),
              testing::HasSubstr("a multiple of the keys' heads"));
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeAttentionTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
