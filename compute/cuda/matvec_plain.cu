// Products with weights that are stored as numbers.
#define FOVEA_MATVEC_TYPES  \
  FOVEA_MATVEC(kF32, true)  \
  FOVEA_MATVEC(kF32, false) \
  FOVEA_MATVEC(kF16, true)  \
  FOVEA_MATVEC(kF16, false) \
  FOVEA_MATVEC(kBF16, true) \
  FOVEA_MATVEC(kBF16, false)
#include "compute/cuda/matvec_kernel.cuh"
