// Products with weights in blocks of 256, and of 32 with bytes.
#define FOVEA_MATVEC_TYPES  \
  FOVEA_MATVEC(kQ4_K, true) \
  FOVEA_MATVEC(kQ5_K, true) \
  FOVEA_MATVEC(kQ6_K, true) \
  FOVEA_MATVEC(kQ8_0, true)
#include "compute/cuda/matvec_kernel.cuh"
