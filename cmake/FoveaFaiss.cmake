# Whether the FAISS that find_package found has a part for GPUs (1.10 or later, for CUDA): sets
# fovea_has_faiss_gpu, fovea_faiss_gpu_libraries, and fovea_cudart, the CUDA runtime that our own
# sources link. CMAKE_PREFIX_PATH or faiss_ROOT names another FAISS than the system's.
set(fovea_has_faiss_gpu OFF)
set(fovea_faiss_gpu_libraries "")
set(fovea_cudart CUDA::cudart_static)
if(fovea_has_cuda)
  include(CheckCXXSourceCompiles)
  include(CMakePushCheckState)
  # Its package does not say: a program that links tells.
  if(NOT "${fovea_faiss_gpu_checked}" STREQUAL "${faiss_DIR}")
    unset(fovea_faiss_gpu_works CACHE)
    set(fovea_faiss_gpu_checked "${faiss_DIR}" CACHE INTERNAL "the FAISS that was looked at")
  endif()
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_LIBRARIES
    faiss BLAS::BLAS LAPACK::LAPACK OpenMP::OpenMP_CXX CUDA::cudart CUDA::cublas)
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_source_compiles("
    #include <faiss/gpu/GpuCloner.h>
    #include <faiss/gpu/StandardGpuResources.h>
    static_assert(FAISS_VERSION_MAJOR > 1 || FAISS_VERSION_MINOR >= 10);
    int main() {
      faiss::gpu::StandardGpuResources resources;
      faiss::gpu::GpuClonerOptions options;
      options.use_cuvs = false;
      return faiss::gpu::index_cpu_to_gpu(&resources, 0, nullptr, &options) != nullptr;
    }" fovea_faiss_gpu_works)
  cmake_pop_check_state()
  if(fovea_faiss_gpu_works)
    set(fovea_has_faiss_gpu ON)
    set(fovea_faiss_gpu_libraries CUDA::cudart CUDA::cublas)
    set(fovea_cudart CUDA::cudart)  # FAISS's: one runtime for both
  endif()
endif()
if(fovea_has_faiss_gpu)
  message(STATUS "FAISS with GPU: ${faiss_DIR}")
else()
  message(STATUS "FAISS without GPU: ${faiss_DIR}")
endif()
