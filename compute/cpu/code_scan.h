// The CPU's part of compute/code_scan.h, with arguments checked already.
#pragma once

#include "compute/code_scan.h"
#include "compute/cpu/cpu_device.h"

namespace fovea::compute::cpu {

void CodeScan(CpuDevice& device, const CodeScanArgs& args, int64_t* positions);

}  // namespace fovea::compute::cpu
