// Codes that EncodeKeys made on a device, read back, and what they say in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "compute/coded_memory_attention.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {

struct StoredCodes {
  StoredCodes() = default;
  StoredCodes(int bits, int64_t head_dim, int64_t n)
      : coder(std::make_shared<KeyCoder>(bits, head_dim)), n_keys(n) {}

  std::shared_ptr<const KeyCoder> coder;
  int64_t n_keys = 0;
  Buffer on_device[4];  // codes, factors, mean, rotation
  std::vector<uint8_t> codes;
  std::vector<BFloat16> factors;
  std::vector<float> mean;

  KeyCodes view() const {
    return {.bits = coder->bits(),
            .codes = on_device[0].data<std::byte>(),
            .factors = on_device[1].data<BFloat16>(),
            .mean = on_device[2].data<float>(),
            .rotation = on_device[3].data<float>()};
  }

  // Code − middle of each dimension of a key, [padded_dim].
  std::vector<double> Centred(int64_t kv_head, int64_t key) const {
    const int bits = coder->bits();
    const int64_t per_line = 32 / bits;
    std::vector<double> result;
    for (int64_t i = 0; i < coder->padded_dim(); ++i) {
      const auto at = static_cast<size_t>(kv_head * coder->code_bytes(n_keys) +
                                          (key / 16 * coder->n_lines() + i / per_line) * 64 +
                                          key % 16 * 4 + i % per_line % 4);
      const int code = codes[at] >> (i % per_line / 4 * bits) & ((1 << bits) - 1);
      result.push_back(code - ((1 << bits) - 1) / 2.0);
    }
    return result;
  }
  double Factor(int64_t kv_head, int64_t key) const {
    return static_cast<float>(
        factors[static_cast<size_t>(kv_head * coder->n_factors(n_keys) + key)]);
  }
  const float* MeanOf(int64_t kv_head) const { return mean.data() + kv_head * coder->head_dim(); }

  std::vector<double> Rotate(const std::vector<double>& x) const {
    const auto padded = static_cast<size_t>(coder->padded_dim());
    std::vector<double> result(padded);
    for (size_t d = 0; d < x.size(); ++d) {
      for (size_t i = 0; i < padded; ++i) result[i] += coder->rotation()[d * padded + i] * x[d];
    }
    return result;
  }
};

// Of keys = [n_kv_heads, n_keys, head_dim] on the device.
inline StoredCodes Encode(Device& device, int bits, const ConstView& keys) {
  const int64_t n_kv_heads = keys.dim(0), n_keys = keys.dim(1), head_dim = keys.dim(2);
  StoredCodes stored(bits, head_dim, n_keys);
  stored.codes.assign(static_cast<size_t>(n_kv_heads * stored.coder->code_bytes(n_keys)), 0xa5);
  stored.factors.assign(static_cast<size_t>(n_kv_heads * stored.coder->n_factors(n_keys)),
                        BFloat16(7.0f));
  stored.mean.assign(static_cast<size_t>(n_kv_heads * head_dim), NAN);
  stored.on_device[0] = ToDevice(device, stored.codes);
  stored.on_device[1] = ToDevice(device, stored.factors);
  stored.on_device[2] = ToDevice(device, stored.mean);
  stored.on_device[3] = ToDevice(device, stored.coder->rotation());
  const absl::Status status = EncodeKeys(device, {.coder = stored.coder.get(),
                                                  .rotation = stored.on_device[3].data<float>(),
                                                  .keys = keys,
                                                  .codes = stored.on_device[0].data<std::byte>(),
                                                  .factors = stored.on_device[1].data<BFloat16>(),
                                                  .mean = stored.on_device[2].data<float>()});
  EXPECT_TRUE(status.ok()) << status;
  const auto read = [&](const Buffer& buffer, auto* to) {
    EXPECT_TRUE(
        device.CopyToHost(buffer.data<void>(), to->size() * sizeof((*to)[0]), to->data()).ok());
  };
  read(stored.on_device[0], &stored.codes);
  read(stored.on_device[1], &stored.factors);
  read(stored.on_device[2], &stored.mean);
  return stored;
}

}  // namespace fovea::compute
