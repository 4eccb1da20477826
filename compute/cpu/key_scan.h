// The CPU's part of compute/key_scan.h and compute/rescore.h, with arguments checked already.
#pragma once

#include "compute/cpu/cpu_device.h"
#include "compute/key_scan.h"
#include "compute/rescore.h"

namespace fovea::compute::cpu {

absl::Status KeyScan(CpuDevice& device, const KeyScanArgs& args, TopK* best);
absl::Status Rescore(CpuDevice& device, const RescoreArgs& args, std::span<TopK> best);
float KeyScore(const float* query, EntryPointer key, int64_t head_dim);
absl::Status KeyScores(CpuDevice& device, const ConstView& query,
                       std::span<const EntryPointer> keys, std::span<float> scores);

}  // namespace fovea::compute::cpu
