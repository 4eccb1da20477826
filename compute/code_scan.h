// The coded nearest-key scan: keys as codes of 2, 4 or 8 bits a dimension, read in full for each
// query, the best candidates kept for an exact rescoring (key_scan.h). A quarter of the bytes of
// bfloat16 keys at 4 bits, an eighth at 2.
//
// A key, less a constant vector of the caller's choice (the mean, so that the codes are spent on
// what tells keys apart; inner products of one query change by a constant), is rotated by a fixed
// pseudo-random rotation, which makes its dimensions alike, and rounded to a grid of its own step.
// The factor that turns its integer sums into scores makes the estimate exact for a query along the
// key, so that the keys that stand out are not underestimated (the estimator of RaBitQ, Gao and
// Long 2024). Queries are rotated and rounded to bytes.
//
//   code   = clamp(round(x / step + (2^bits − 1)/2), 0, 2^bits − 1)
//   factor = |x|² / <x, code − (2^bits − 1)/2>
//   score ≈ factor · <code − (2^bits − 1)/2, query>
//
// Codes of 16 keys lie together: a block is `n_lines` lines of 64 bytes, word k of a line (32 bits)
// belongs to key k. Byte b of word k of line l holds dimensions (32/bits)·l + 4·s + b,
// s = 0 … 8/bits − 1, at bits bits·s upwards. A last block that is not full is filled with zeros.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/float16.h"
#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

inline constexpr int64_t kCodeBlockKeys = 16;

// Codes of one KV head, in the device's memory.
struct CodedKeys {
  const std::byte* codes = nullptr;   // [n_blocks, n_lines, 64]
  const BFloat16* factors = nullptr;  // [n_blocks · 16]
  int64_t n_keys = 0;
};

// Makes codes. Immutable and thread-safe.
class KeyCoder {
 public:
  // `bits`: 2, 4 or 8. head_dim >= 1.
  KeyCoder(int bits, int64_t head_dim);
  int bits() const { return bits_; }
  int64_t head_dim() const { return head_dim_; }
  // head_dim rounded up to a whole line; what is added is rotated as well.
  int64_t padded_dim() const { return padded_dim_; }
  int64_t n_lines() const { return NumLines(bits_, head_dim_); }
  int64_t code_bytes(int64_t n_keys) const { return NumBlocks(n_keys) * n_lines() * 64; }
  int64_t n_factors(int64_t n_keys) const { return NumBlocks(n_keys) * kCodeBlockKeys; }
  // [head_dim, padded_dim]: the image of each dimension.
  const std::vector<float>& rotation() const { return rotation_; }

  // Codes of the block's n_keys (1 … 16) keys: codes = [n_lines, 64], factors = [16].
  void EncodeBlock(const float* keys, int64_t n_keys,  // [n_keys, head_dim], finite
                   std::byte* codes, BFloat16* factors) const;

  static int64_t PaddedDim(int bits, int64_t head_dim) {
    return (head_dim + 32 / bits - 1) / (32 / bits) * (32 / bits);
  }
  static int64_t NumLines(int bits, int64_t head_dim) {
    return PaddedDim(bits, head_dim) * bits / 32;
  }
  static int64_t NumBlocks(int64_t n_keys) {
    return (n_keys + kCodeBlockKeys - 1) / kCodeBlockKeys;
  }

 private:
  const int bits_;
  const int64_t head_dim_;
  const int64_t padded_dim_;
  const std::vector<float> rotation_;
};

struct CodeScanArgs {
  const KeyCoder* coder = nullptr;
  std::span<const CodedKeys> heads;  // one per KV head, all of as many keys
  // [n_queries, n_heads, head_dim], float32, contiguous. n_heads is a multiple of the KV heads;
  // query head h has KV head h / (n_heads / n_kv_heads).
  ConstView queries;
  int64_t n_candidates = 0;  // wanted per query and head, at least 1
  // Which positions (of keys in the order of their codes) may be returned, bit p of the map for
  // position p. Null: all.
  const uint64_t* allowed = nullptr;
};
// positions = [n_queries, n_heads, n_candidates]: those with the best estimated scores (equal ones:
// the smaller positions), in no particular order, −1 at the end of a row that has fewer. All heads
// in one pass over their codes with all threads of the device; the result depends neither on their
// number nor on the instruction set's sums, which are of integers. InvalidArgument for shapes that
// do not fit each other.
absl::Status CodeScan(Device& device, const CodeScanArgs& args, int64_t* positions);

}  // namespace fovea::compute
