// What a recorded step of one token consists of: its local attention, its products, the next id,
// and the recording itself.
#include <cstring>

#include "base/float16.h"
#include "compute/append_row.h"
#include "compute/arg_max.h"
#include "compute/attention.h"
#include "compute/convert.h"
#include "compute/decode_attention.h"
#include "compute/linear.h"
#include "compute/rms_norm.h"
#include "compute/rope.h"
#include "compute/silu_mul.h"
#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

struct Shape {
  int64_t n_heads, n_kv_heads, head_dim, room;
  bool in_bf16, rotates;
};

class DecodeStepTest : public testing::TestWithParam<std::string> {};

// Token after token, it is the softmax over all that came before: the ops of a prompt, in float32
// on a CPU, are the reference.
TEST_P(DecodeStepTest, AttendsToAllTokensBeforeAndItself) {
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

TEST_P(DecodeStepTest, RefusesWhatDoesNotFit) {
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

TEST_P(DecodeStepTest, TheGreatestNumberIsTheFirstOfEqualOnes) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer out = *device->Allocate(sizeof(int32_t));
  const auto arg_max = [&](const std::vector<float>& numbers) {
    const Buffer x = ToDevice(*device, numbers);
    const absl::Status status =
        ArgMax(*device, {.x = {x.data<float>(), {static_cast<int64_t>(numbers.size())}},
                         .out = out.data<int32_t>()});
    EXPECT_TRUE(status.ok()) << status;
    int32_t place = -1;
    EXPECT_TRUE(device->CopyToHost(out.data<void>(), sizeof(place), &place).ok());
    return place;
  };
  for (const size_t n : {1, 31, 2048, 2049, 49152, 151936}) {
    std::vector<float> numbers = RandomFloats(n, static_cast<uint32_t>(n));
    EXPECT_EQ(arg_max(numbers), std::max_element(numbers.begin(), numbers.end()) - numbers.begin());
    numbers[n - 1] = numbers[n / 2] = 100.0f;
    EXPECT_EQ(arg_max(numbers), static_cast<int32_t>(n / 2));
    std::fill(numbers.begin(), numbers.end(), -3.0f);
    EXPECT_EQ(arg_max(numbers), 0);
    if (n > 1) {
      numbers[0] = std::nanf("");
      EXPECT_EQ(arg_max(numbers), 1) << "NaN is the least";
    }
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      ArgMax(*device, {.x = {out.data<float>(), {0}}, .out = out.data<int32_t>()})));
}

TEST_P(DecodeStepTest, RowsAreAppendedUntilTheirRoomIsFull) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer rows = ToDevice(*device, std::vector<float>(4 * 5, -1.0f));
  const Buffer next = ToDevice(*device, std::vector<int32_t>{0});
  std::vector<float> expected;
  for (int row = 0; row < 6; ++row) {
    const auto x = static_cast<float>(row);
    const Buffer two = ToDevice(*device, {x, x + 0.25f});
    const Buffer three = ToDevice(*device, {x + 0.5f, x + 0.75f, x + 0.875f});
    const AppendRowArgs::Piece pieces[] = {{two.data<void>(), 8}, {three.data<void>(), 12}};
    for (const bool advances : {false, true}) {
      const absl::Status status = AppendRow(*device, {.pieces = pieces,
                                                      .rows = rows.data<void>(),
                                                      .n_rows = 4,
                                                      .next_row = next.data<int32_t>(),
                                                      .advances = advances});
      ASSERT_TRUE(status.ok()) << status;
    }
    if (row < 4) expected.insert(expected.end(), {x, x + 0.25f, x + 0.5f, x + 0.75f, x + 0.875f});
  }
  EXPECT_EQ(ToHost(*device, rows, 20), expected);
  const AppendRowArgs::Piece odd[] = {{rows.data<void>(), 3}};
  EXPECT_TRUE(absl::IsInvalidArgument(AppendRow(
      *device,
      {.pieces = odd, .rows = rows.data<void>(), .n_rows = 4, .next_row = next.data<int32_t>()})));
}

// Products of a normed row, and gated ones, are what the ops they stand for give, bit for bit.
TEST_P(DecodeStepTest, NormedAndGatedProductsAreTheirPartsInOne) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_1, DType::kQ8_0, DType::kQ6_K}) {
    for (const int64_t n_tokens : {1, 2, 8, 20}) {
      for (const int64_t n_in : {512, 16384}) {
        constexpr int64_t kOut = 70;
        const std::vector<std::byte> gate_weight =
            Quantize(dtype, RandomFloats(static_cast<size_t>(n_in * kOut), 1, 0.05f));
        const std::vector<std::byte> up_weight =
            Quantize(dtype, RandomFloats(static_cast<size_t>(n_in * kOut), 2, 0.05f));
        const auto make = [&](const std::vector<std::byte>& weight, std::vector<Buffer>* buffers) {
          buffers->push_back(*device->UploadConstant(weight.data(), weight.size()));
          return *Linear::Create(
              *device,
              {.name = "test", .weight = {dtype, buffers->back().data<void>(), {kOut, n_in}}});
        };
        std::vector<Buffer> buffers;
        const auto gate = make(gate_weight, &buffers);
        const auto up = make(up_weight, &buffers);
        const auto n_out = static_cast<size_t>(n_tokens * kOut);
        const Buffer x =
            ToDevice(*device, RandomFloats(static_cast<size_t>(n_tokens * n_in), 3, 2.0f));
        const Buffer weight = ToDevice(*device, RandomFloats(static_cast<size_t>(n_in), 4));
        const Buffer normed =
            *device->Allocate(static_cast<size_t>(n_tokens * n_in) * sizeof(float));
        const Buffer a = *device->Allocate(n_out * sizeof(float));
        const Buffer b = *device->Allocate(n_out * sizeof(float));
        const ConstView x_view(x.data<float>(), {n_tokens, n_in});
        const View normed_view(normed.data<float>(), {n_tokens, n_in});
        const Linear::Output outputs[] = {{gate.get(), {a.data<float>(), {n_tokens, kOut}}},
                                          {up.get(), {b.data<float>(), {n_tokens, kOut}}}};
        const Linear::Norm norm{{weight.data<float>(), {n_in}}, 1e-5f, normed_view};

        ASSERT_TRUE(
            RmsNorm(*device,
                    {.x = x_view, .weight = norm.weight, .out = normed_view, .eps = norm.eps})
                .ok());
        ASSERT_TRUE(Linear::ForwardTogether(*device, outputs, normed_view).ok());
        const std::vector<float> expected_gate = ToHost(*device, a, n_out);
        const std::vector<float> expected_up = ToHost(*device, b, n_out);
        ASSERT_TRUE(
            SiluMul(*device, {.gate = outputs[0].out, .up = outputs[1].out, .out = outputs[0].out})
                .ok());
        const std::vector<float> expected_gated = ToHost(*device, a, n_out);

        SCOPED_TRACE(StrCat(Traits(dtype).name, ", ", n_tokens, " x ", n_in));
        ASSERT_TRUE(Linear::ForwardNormed(*device, outputs, x_view, norm).ok());
        EXPECT_EQ(ToHost(*device, a, n_out), expected_gate);
        EXPECT_EQ(ToHost(*device, b, n_out), expected_up);
        ASSERT_TRUE(Linear::ForwardGated(*device, outputs[0], outputs[1], x_view, norm).ok());
        EXPECT_EQ(ToHost(*device, a, n_out), expected_gated);
      }
    }
  }
}

TEST_P(DecodeStepTest, ARecordingReadsItsInputsEachTime) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  if (!device->CanRecord()) GTEST_SKIP() << "recording does not pay on this device";
  constexpr size_t kN = 1000;
  const Buffer pinned = *device->AllocatePinned(kN * sizeof(float));
  const Buffer x = *device->Allocate(kN * sizeof(float));
  const Buffer best = *device->Allocate(sizeof(int32_t));
  const auto queue = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        device->CopyFromPinned(pinned.data<void>(), kN * sizeof(float), x.data<void>()));
    return ArgMax(*device, {.x = {x.data<float>(), {kN}}, .out = best.data<int32_t>()});
  };
  auto recording = device->Record(queue);
  ASSERT_TRUE(recording.ok()) << recording.status();
  for (const int32_t place : {3, 999, 0}) {
    std::vector<float> numbers(kN, 1.0f);
    numbers[static_cast<size_t>(place)] = 2.0f;
    std::memcpy(pinned.data<void>(), numbers.data(), kN * sizeof(float));
    ASSERT_TRUE((*recording)->Replay().ok());
    int32_t found = -1;
    ASSERT_TRUE(device->CopyToHost(best.data<void>(), sizeof(found), &found).ok());
    EXPECT_EQ(found, place);
  }
  // What would be allocated for one run and given back is not there in the next.
  const auto allocates = device->Record([&] { return device->Allocate(4).status(); });
  EXPECT_TRUE(absl::IsFailedPrecondition(allocates.status())) << allocates.status();
  EXPECT_TRUE(device->Allocate(4).ok()) << "the device goes on";
  const auto fails = device->Record([] { return absl::CancelledError("stopped"); });
  EXPECT_TRUE(absl::IsCancelled(fails.status())) << fails.status();
  ASSERT_TRUE((*recording)->Replay().ok());
  ASSERT_TRUE(device->Synchronize().ok());
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeStepTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
