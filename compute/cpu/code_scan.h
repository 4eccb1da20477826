// The CPU's part of compute/code_scan.h, with arguments checked already.
#pragma once

#include "base/thread_pool.h"
#include "compute/code_scan.h"

namespace fovea::compute::cpu {

void CodeScan(ThreadPool& threads, const CodeScanArgs& args, int64_t* positions);
void EncodeCodeBlock(const KeyCoder& coder, const float* keys, int64_t n_keys, std::byte* codes,
                     BFloat16* factors);

}  // namespace fovea::compute::cpu
