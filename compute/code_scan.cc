#include "compute/code_scan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compute/check_argument.h"
#include "compute/cpu/code_scan.h"
#include "compute/cpu/key_codes.h"
#include "compute/unavailable.h"

namespace fovea::compute {
namespace {

// SplitMix64 (Steele et al. 2014): the rotation is part of the format of stored codes, so its
// randomness must be the same everywhere, whatever the standard library does.
class FixedRandom {
 public:
  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_ = 0x466f76656131u;
};

// Rounds of random signs, a random order, and the rotation of each pair of neighbours by 45°. Twice
// as many as a fast Hadamard transform has mix every dimension into every other, whether their
// number is a power of two or not.
std::vector<float> MakeRotation(int64_t head_dim, int64_t padded_dim) {
  int n_rounds = 2;
  for (int64_t dim = 1; dim < padded_dim; dim *= 2) n_rounds += 2;
  const auto n = static_cast<size_t>(padded_dim);
  // Columns: images of the dimensions; all of them go through the same rounds.
  std::vector<std::vector<double>> images(static_cast<size_t>(head_dim), std::vector<double>(n));
  for (size_t d = 0; d < images.size(); ++d) images[d][d] = 1.0;
  FixedRandom random;
  std::vector<size_t> order(n);
  std::vector<double> signs(n), mixed(n);
  for (int round = 0; round < n_rounds; ++round) {
    for (size_t i = 0; i < n; ++i) {
      order[i] = i;
      signs[i] = (random.Next() & 1) != 0 ? -1.0 : 1.0;
    }
    for (size_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.Next() % (i + 1)]);
    for (std::vector<double>& image : images) {
      for (size_t i = 0; i < n; ++i) mixed[i] = signs[i] * image[order[i]];
      for (size_t i = 0; i + 1 < n; i += 2) {
        image[i] = (mixed[i] + mixed[i + 1]) * M_SQRT1_2;
        image[i + 1] = (mixed[i] - mixed[i + 1]) * M_SQRT1_2;
      }
    }
  }
  std::vector<float> rotation;
  rotation.reserve(images.size() * n);
  for (const std::vector<double>& image : images) {
    rotation.insert(rotation.end(), image.begin(), image.end());
  }
  return rotation;
}

}  // namespace

KeyCoder::KeyCoder(int bits, int64_t head_dim)
    : bits_(bits),
      head_dim_(head_dim),
      padded_dim_(PaddedDim(bits, head_dim)),
      rotation_(MakeRotation(head_dim, padded_dim_)) {
  FOVEA_CHECK(bits == 2 || bits == 4 || bits == 8);
  FOVEA_CHECK(head_dim >= 1);
}

void KeyCoder::EncodeBlock(const float* keys, int64_t n_keys, std::byte* codes,
                           BFloat16* factors) const {
  FOVEA_CHECK(n_keys >= 1 && n_keys <= kCodeBlockKeys);
  cpu::EncodeCodeBlock(*this, keys, n_keys, codes, factors);
}

absl::Status CodeScan(Device& device, const CodeScanArgs& args, int64_t* positions) {
  const auto n_kv_heads = static_cast<int64_t>(args.heads.size());
  RETURN_IF_ERROR(CheckArgument(device, "CodeScan", "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, args.coder->head_dim()}));
  const int64_t n_heads = args.queries.dim(1);
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0 || args.n_candidates < 1) {
    return absl::InvalidArgumentError(StrCat(
        "CodeScan: ", args.queries.dim(0), " queries of ", n_heads, " heads, ", args.n_candidates,
        " candidates; want a multiple of ", n_kv_heads, " heads and at least one candidate"));
  }
  for (const CodedKeys& head : args.heads) {
    if (head.n_keys != args.heads[0].n_keys) {
      return absl::InvalidArgumentError(StrCat("CodeScan: heads of ", args.heads[0].n_keys, " and ",
                                               head.n_keys, " keys, want as many in each"));
    }
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      cpu::CodeScan(cpu::AsCpu(device), args, positions);
      return absl::OkStatus();
    case DeviceKind::kCuda:
      return Unavailable("CodeScan");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
