// The CPU's part of compute/key_scan.h, with arguments checked already.
#pragma once

#include "base/thread_pool.h"
#include "compute/key_scan.h"

namespace fovea::compute::cpu {

void KeyScan(ThreadPool& threads, const KeyScanArgs& args, TopK* best);
float KeyScore(const float* query, EntryPointer key, int64_t head_dim);
void KeyScores(const float* query, int64_t head_dim, std::span<const EntryPointer> keys,
               std::span<float> scores);

}  // namespace fovea::compute::cpu
