// What both attentions to a memory share on a CPU: keys that are scanned, and attention to what was
// kept.
#pragma once

#include <cstdint>
#include <vector>

#include "base/entries.h"
#include "compute/cpu/cpu_device.h"
#include "compute/key_scan.h"
#include "compute/memory_attention.h"

namespace fovea::compute::cpu {

// The queries of a KV head, as KeyScan wants them.
ConstView QueriesOf(const ConstView& queries, int64_t kv_head, int64_t group);

EntryPointer KeysOf(const MemoryPart& part, int64_t kv_head);

// Pushes the allowed keys of a part, whose first has this position, into *kept, [n_kv_heads].
absl::Status ScanPart(CpuDevice& device, const ConstView& queries, const MemoryPart& part,
                      int64_t first_position, std::vector<TopK>* kept);

// Output (unless none), lse, positions and scores of args from *kept; the queries' numbers are not
// looked at.
void AttendToKept(CpuDevice& device, const MemoryAttentionArgs& args, std::vector<TopK>* kept);

}  // namespace fovea::compute::cpu
