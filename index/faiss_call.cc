#include "index/faiss_call.h"

#include <faiss/Index.h>
#include <omp.h>

#include <exception>
#include <mutex>
#include <new>

#include "index/layer_index.h"

// OpenBLAS has a team of its own, which would fight over the cores with ours; other BLAS libraries
// lack the function.
extern "C" void openblas_set_num_threads(int n_threads) __attribute__((weak));

namespace fovea::index {

absl::Status CallFaiss(std::string_view action, absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(action, ": out of memory"));
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(StrCat(action, ": FAISS says: ", e.what()));
  }
}

void UseOneThread() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  });
  omp_set_num_threads(1);
}

std::string FaissVersion() {
  return StrCat(FAISS_VERSION_MAJOR, ".", FAISS_VERSION_MINOR, ".", FAISS_VERSION_PATCH);
}

}  // namespace fovea::index
