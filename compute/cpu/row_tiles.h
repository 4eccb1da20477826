// Quantised weights in tiles of 16 rows, for single-token steps with AVX-512 VNNI; steps of eight
// answers and more take AMX where the processor has it, with the same bits. A tile holds the bytes
// of its rows in another order, as many as before: four values of 16 rows fill a vector, so that a
// product needs no sum across lanes, and what is read is read in one stream.
//
// Tile of 16 rows: for each block of 32 values
//   quanta  Q4_0, Q4_1: [4][16 rows][4 bytes], low nibbles values 4i … 4i + 3, high ones 16 more
//           Q8_0:       [8][16 rows][4 bytes], values + 128
//   scales  [16] halves
//   offsets [16] halves, Q4_1 only
#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/cpu/matvec.h"
#include "compute/dtype.h"

namespace fovea::compute::cpu {

inline constexpr int64_t kTileRows = 16;

// Whether this processor multiplies tiles of such weights.
bool HasRowTiles(DType dtype, int64_t out_features, int64_t in_features);

// Rows [first_tile · 16, end_tile · 16) of weight [out_features, in_features], stored rows →
// `tiles`, of out_features · row_bytes, 64-byte aligned.
void PackRowTiles(DType dtype, const std::byte* weight, size_t row_bytes, int64_t first_tile,
                  int64_t end_tile, std::byte* tiles);

// As MatVecRows, of weights in tiles: args.weight is what PackRowTiles made, args.lora_b likewise
// in tiles, [out_features / 16, lora_rank, 16], as floats. begin and end are multiples of 16.
void MultiplyRowTiles(const MatVecArgs& args, int64_t begin, int64_t end);

}  // namespace fovea::compute::cpu
