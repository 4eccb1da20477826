#include "compute/cuda/cublas_lt.h"

#include <dlfcn.h>

namespace fovea::compute::cuda {
namespace {

absl::StatusOr<CublasLt> Load() {
  const std::string file = StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return absl::UnavailableError(StrCat(
        file, ": cannot be loaded (", reason != nullptr ? reason : "no reason was given",
        "): install CUDA's cuBLAS and name its folder in LD_LIBRARY_PATH, or use device 'cpu'"));
  }
  CublasLt functions;
  absl::Status status;
  const auto find = [&](const char* name, auto* function) {
    void* const address = dlsym(library, name);
    if (address == nullptr && status.ok()) {
      status = absl::UnavailableError(StrCat(file, ": has no ", name, ": install CUDA ",
                                             CUBLAS_VER_MAJOR, "'s cuBLAS, or use device 'cpu'"));
    }
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(address);
  };
  find("cublasLtCreate", &functions.Create);
  find("cublasLtDestroy", &functions.Destroy);
  find("cublasLtMatmul", &functions.Matmul);
  find("cublasLtMatmulDescCreate", &functions.MatmulDescCreate);
  find("cublasLtMatmulDescDestroy", &functions.MatmulDescDestroy);
  find("cublasLtMatmulDescSetAttribute", &functions.MatmulDescSetAttribute);
  find("cublasLtMatrixLayoutCreate", &functions.MatrixLayoutCreate);
  find("cublasLtMatrixLayoutDestroy", &functions.MatrixLayoutDestroy);
  find("cublasLtMatmulPreferenceCreate", &functions.MatmulPreferenceCreate);
  find("cublasLtMatmulPreferenceDestroy", &functions.MatmulPreferenceDestroy);
  find("cublasLtMatmulPreferenceSetAttribute", &functions.MatmulPreferenceSetAttribute);
  find("cublasLtMatmulAlgoGetHeuristic", &functions.MatmulAlgoGetHeuristic);
  RETURN_IF_ERROR(status);
  return functions;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<CublasLt>* const loaded = new absl::StatusOr<CublasLt>(Load());
  RETURN_IF_ERROR(loaded->status());
  return &**loaded;
}

}  // namespace fovea::compute::cuda
