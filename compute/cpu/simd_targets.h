// The instruction sets that kernels are compiled for; include it before hwy/foreach_target.h.
#pragma once

// Nothing here gains from the targets between these; vectors without a size at compile time cannot
// be held in arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
