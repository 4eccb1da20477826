// cuBLASLt, opened when the first CUDA device is made: linked in, its hundreds of megabytes would
// cost every process of fovea a tenth of a second at its start, on a CPU too (measured), and a
// binary would not start where CUDA is not installed.
#pragma once

#include <cublasLt.h>

#include <memory>

#include "base/status.h"

namespace fovea::compute::cuda {

// The functions of the library that matrix products need, called as in its documentation.
struct CublasLt {
  decltype(&cublasLtCreate) Create;
  decltype(&cublasLtDestroy) Destroy;
  decltype(&cublasLtMatmul) Matmul;
  decltype(&cublasLtMatmulDescCreate) MatmulDescCreate;
  decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy;
  decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
  decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
  decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
  decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
  decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
  decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
};

// Loaded once a process, never unloaded. Unavailable, naming the file, where it is not installed.
absl::StatusOr<const CublasLt*> LoadCublasLt();

}  // namespace fovea::compute::cuda
