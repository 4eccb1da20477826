// The kernel of a coded scan: blocks of codes (compute/code_scan.h) against a few queries. One line
// of codes serves 16 keys: a vector holds the sums of as many keys as it has 32-bit lanes, each
// byte product adds four dimensions, and a block's scores of one query are compared with the
// query's threshold at once.
#pragma once

#include <cstdint>

#include "compute/code_scan.h"
#include "compute/cpu/code_scan_scratch.h"
#include "compute/cpu/key_codes.h"

namespace fovea::compute::cpu {

// Rows of queries that go through a block together at most: as many as this processor's registers
// have sums for, since a line of codes is unpacked once for all of them.
int MaxCodeRows();

// One to MaxCodeRows() rows of queries of one KV head, as a scan wants them.
struct RowGroup {
  const uint32_t* words;  // [padded_dim / 4, n_rows]: four digits each
  const float* offsets;   // [n_rows]: what the sum of a key with codes in the middle would be
  int n_rows;
};

struct BlockRange {
  const CodedKeys* keys;
  int64_t n_lines;
  int64_t begin;
  int64_t end;
  int64_t next;             // a block to fetch meanwhile, or −1
  const uint64_t* allowed;  // or null
};

// Whether the processor has the instructions that ScanCodeBlocks(vnni = true) is made of.
bool HasCodeScanVnni();

// Every row's keys of the range that pass its threshold go to its collector, collectors =
// [group.n_rows]. `bits` are those of the codes: 2, 4 or 8.
void ScanCodeBlocks(int bits, bool vnni, const BlockRange& range, const RowGroup& group,
                    Collector* collectors);

}  // namespace fovea::compute::cpu
