// Products of tiles of bytes (AMX-INT8) and of bfloat16 (AMX-BF16), which x86-64 servers have:
// sixteen rows by sixteen columns in one instruction. A tile lies in a register of its own kind, up
// to 16 rows of 64 bytes, and its shape is the thread's until it is released.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea::compute::cpu {

// Whether the processor has them and the system lets this process use them: asked for at the first
// call. Thread-safe.
bool HasAmxInt8();
bool HasAmxBf16();

// For tests: from now on false / what the processor has.
void DisableAmxForTest(bool disable);

inline constexpr int64_t kAmxRows = 16;  // of a tile, at most

#if defined(__x86_64__)

inline constexpr int kAmxTiles = 8;

// Gives this thread's tiles their shapes while it lives: tile i has rows[i] rows of row_bytes[i]
// bytes. One at a time in a thread, and HasAmxInt8() or HasAmxBf16().
class AmxTiles {
 public:
  struct Shape {
    uint8_t rows = 0;
    uint16_t row_bytes = 0;
  };
  explicit AmxTiles(const Shape (&shapes)[kAmxTiles]) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } configuration;
    static_assert(sizeof(configuration) == 64);
    for (int i = 0; i < kAmxTiles; ++i) {
      configuration.row_bytes[i] = shapes[i].row_bytes;
      configuration.rows[i] = shapes[i].rows;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
  }
  // Else each switch of threads would save the tiles.
  ~AmxTiles() { __asm__ volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  // Rows lie `stride` bytes apart. Instructions by hand: the instruction sets that kernels are
  // compiled for do not include them.
  template <int kTile>
  void Load(const void* from, int64_t stride) const {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kTile>
  void Store(void* to, int64_t stride) const {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(kTile)
                     : "memory");
  }
  template <int kTile>
  void Zero() const {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  // sums[m][n] += Σ over k of a[m][k]·b[k / 4][4n + k % 4], of 32 bits; bytes of a have a sign,
  // those of b none.
  template <int kSums, int kA, int kB>
  void AddProducts() const {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
  // sums[m][n] += Σ over k of a[m][k]·b[k / 2][2n + k % 2]: floats, and products of bfloat16; the
  // sums of even and of odd k are rounded apart.
  template <int kSums, int kA, int kB>
  void AddBf16Products() const {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
  }
};

#endif

}  // namespace fovea::compute::cpu
