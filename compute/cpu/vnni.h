// Whether the processor multiplies bytes four at a time (VNNI), which instruction sets that kernels
// are compiled for (simd_targets.h) do not tell: some processors have it without the rest of its
// generation.
#pragma once

namespace fovea::compute::cpu {

// 256-bit VPDPBUSD in its AVX-512 encoding; false where the processor has no AVX-512.
bool HasAvx512Vnni();
// The same instruction in its AVX encoding.
bool HasAvxVnni();

// For tests: from now on both are false / what the processor has.
void DisableVnniForTest(bool disable);

}  // namespace fovea::compute::cpu
