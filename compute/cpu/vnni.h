// Whether the processor multiplies bytes four at a time (VNNI; on ARM: dot products), which
// instruction sets that kernels are compiled for (simd_targets.h) do not tell: some processors have
// it without the rest of its generation.
#pragma once

namespace fovea::compute::cpu {

// VPDPBUSD of any width in its AVX-512 encoding; false where the processor has no AVX-512.
bool HasAvx512Vnni();
// The same instruction in its AVX encoding, of up to 256 bits.
bool HasAvxVnni();
// ARM's SDOT, in a build for processors that have it.
bool HasArmDotProduct();

// For tests: from now on all are false / what the processor has.
void DisableVnniForTest(bool disable);

}  // namespace fovea::compute::cpu
