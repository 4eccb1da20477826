#include <algorithm>

#include "tests/compute/stored_codes.h"

namespace fovea::compute {
namespace {

struct Shape {
  int bits;
  int64_t n_kv_heads, n_keys, head_dim;
  bool in_bf16;
};

class EncodeKeysTest : public testing::TestWithParam<std::string> {};

// How well a grid suits a key: the cosine between the two, squared.
double Cosine2(const std::vector<double>& code, const std::vector<double>& key) {
  double product = 0.0, code2 = 0.0, key2 = 0.0;
  for (size_t i = 0; i < key.size(); ++i) {
    product += code[i] * key[i];
    code2 += code[i] * code[i];
    key2 += key[i] * key[i];
  }
  return product * product / std::max(code2 * key2, 1e-30);
}

TEST_P(EncodeKeysTest, CodesAreAsGoodAsTheCoders) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  uint32_t seed = 3;
  for (const Shape& s : {Shape{4, 3, 1003, 64, true},
                         {2, 2, 300, 64, true},
                         {8, 1, 200, 64, true},
                         {4, 2, 17, 100, false},
                         {2, 1, 40, 20, false},
                         {8, 2, 33, 128, true},
                         {4, 1, 5, 3, false}}) {
    SCOPED_TRACE(StrCat(s.bits, " bits, ", s.n_keys, " keys of ", s.head_dim));
    // Far from 0, so that the mean counts.
    std::vector<float> keys =
        RandomFloats(static_cast<size_t>(s.n_kv_heads * s.n_keys * s.head_dim), seed += 10, 2.0f);
    std::vector<BFloat16> stored(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      keys[i] += static_cast<float>(i % static_cast<size_t>(s.head_dim) % 5);
      stored[i] = BFloat16(keys[i]);
      if (s.in_bf16) keys[i] = static_cast<float>(stored[i]);
    }
    const Buffer on_device = s.in_bf16 ? ToDevice(*device, stored) : ToDevice(*device, keys);
    const StoredCodes codes =
        Encode(*device, s.bits,
               ConstView(s.in_bf16 ? DType::kBF16 : DType::kF32, on_device.data<void>(),
                         {s.n_kv_heads, s.n_keys, s.head_dim}));
    const auto d = static_cast<size_t>(s.head_dim);
    for (int64_t h = 0; h < s.n_kv_heads; ++h) {
      const float* const mean = codes.MeanOf(h);
      for (size_t i = 0; i < d; ++i) {
        double sum = 0.0;
        for (int64_t k = 0; k < s.n_keys; ++k) {
          sum += keys[static_cast<size_t>(h * s.n_keys + k) * d + i];
        }
        ASSERT_NEAR(mean[i], sum / static_cast<double>(s.n_keys), 1e-4);
      }
      for (int64_t k = 0; k < s.n_keys; ++k) {
        std::vector<float> centred(d);
        for (size_t i = 0; i < d; ++i) {
          centred[i] = keys[static_cast<size_t>(h * s.n_keys + k) * d + i] - mean[i];
        }
        const std::vector<double> key =
            codes.Rotate(std::vector<double>(centred.begin(), centred.end()));
        const std::vector<double> code = codes.Centred(h, k);
        double norm2 = 0.0, product = 0.0;
        for (size_t i = 0; i < key.size(); ++i) {
          norm2 += key[i] * key[i];
          product += key[i] * code[i];
        }
        ASSERT_NEAR(codes.Factor(h, k) * product / norm2, 1.0, 1.0 / 200.0) << "key " << k;
        StoredCodes want(s.bits, s.head_dim, 1);
        want.codes.resize(static_cast<size_t>(want.coder->code_bytes(1)));
        want.factors.resize(static_cast<size_t>(want.coder->n_factors(1)));
        want.coder->EncodeBlock(centred.data(), 1, reinterpret_cast<std::byte*>(want.codes.data()),
                                want.factors.data());
        ASSERT_GT(Cosine2(code, key), Cosine2(want.Centred(0, 0), key) - 1e-4) << "key " << k;
      }
    }
  }
}

TEST_P(EncodeKeysTest, WhatIsNotFiniteHasNoFactor) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  std::vector<float> keys = RandomFloats(50 * 16, 1);
  keys[5 * 16 + 3] = NAN;
  keys[33 * 16] = std::numeric_limits<float>::infinity();
  const Buffer on_device = ToDevice(*device, keys);
  const StoredCodes codes = Encode(*device, 4, {on_device.data<float>(), {1, 50, 16}});
  for (int64_t k = 0; k < 50; ++k) {
    EXPECT_EQ(codes.Factor(0, k) == 0.0, k == 5 || k == 33) << k;
  }
  for (const float x : codes.mean) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(EncodeKeysTest, NamesTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer keys = ToDevice(*device, std::vector<float>(400));
  const KeyCoder coder(4, 16);
  const absl::Status status =
      EncodeKeys(*device, {.coder = &coder, .keys = {keys.data<float>(), {1, 5, 8}}});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  const absl::Status no_codes =
      EncodeKeys(*device, {.coder = &coder, .keys = {keys.data<float>(), {1, 5, 16}}});
  EXPECT_TRUE(absl::IsInvalidArgument(no_codes)) << no_codes;
  EXPECT_THAT(std::string(no_codes.message()), testing::HasSubstr("codes are not given"));
}

INSTANTIATE_TEST_SUITE_P(Devices, EncodeKeysTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
