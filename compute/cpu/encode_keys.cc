#include <algorithm>
#include <cmath>
#include <vector>

#include "compute/coded_memory_attention.h"
#include "compute/cpu/memory_attention.h"
#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {
namespace {

constexpr int64_t kSampledKeys = 65'536;

void MeanOf(EntryPointer keys, int64_t n_keys, int64_t head_dim, float* mean) {
  const int64_t n_sampled = std::min(n_keys, kSampledKeys);
  std::vector<double> sums(static_cast<size_t>(head_dim));
  std::vector<float> key(sums.size());
  for (int64_t i = 0; i < n_sampled; ++i) {
    EntriesToFloat(keys + i * n_keys / n_sampled * head_dim, key.data(), key.size());
    for (size_t d = 0; d < sums.size(); ++d) sums[d] += std::isfinite(key[d]) ? key[d] : 0.0;
  }
  for (size_t d = 0; d < sums.size(); ++d) {
    mean[d] = static_cast<float>(sums[d] / static_cast<double>(n_sampled));
  }
}

}  // namespace

absl::Status EncodeKeys(CpuDevice& device, const EncodeKeysArgs& args) {
  const KeyCoder& coder = *args.coder;
  const int64_t n_keys = args.keys.dim(1);
  const int64_t head_dim = args.keys.dim(2);
  const MemoryPart part{.keys = args.keys, .values = args.keys};
  for (int64_t h = 0; h < args.keys.dim(0); ++h) {
    const EntryPointer keys = KeysOf(part, h);
    float* const mean = args.mean + h * head_dim;
    MeanOf(keys, n_keys, head_dim, mean);
    std::byte* const codes = args.codes + h * coder.code_bytes(n_keys);
    BFloat16* const factors = args.factors + h * coder.n_factors(n_keys);
    device.threads().ParallelFor(
        KeyCoder::NumBlocks(n_keys), 256, [&](int64_t begin, int64_t end, int) {
          std::vector<float> centred(static_cast<size_t>(kCodeBlockKeys * head_dim));
          for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * kCodeBlockKeys;
            const int64_t n = std::min(kCodeBlockKeys, n_keys - first);
            for (int64_t k = 0; k < n; ++k) {
              float* const key = centred.data() + k * head_dim;
              EntriesToFloat(keys + (first + k) * head_dim, key, static_cast<size_t>(head_dim));
              bool is_finite = true;
              for (int64_t d = 0; d < head_dim; ++d) {
                key[d] -= mean[d];
                is_finite &= std::isfinite(key[d]);
              }
              if (!is_finite) std::fill_n(key, head_dim, 0.0f);
            }
            coder.EncodeBlock(centred.data(), n, codes + block * coder.n_lines() * 64,
                              factors + first);
          }
        });
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
