// Products with weights in blocks of 32 with nibbles.
#define FOVEA_MATVEC_TYPES  \
  FOVEA_MATVEC(kQ4_0, true) \
  FOVEA_MATVEC(kQ4_1, true) \
  FOVEA_MATVEC(kQ5_0, true) \
  FOVEA_MATVEC(kQ5_1, true)
#include "compute/cuda/matvec_kernel.cuh"
