#include "index/faiss_call.h"

#include <faiss/Index.h>
#include <omp.h>

#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>

#include "index/faiss_gpu.h"
#include "index/layer_index.h"

// OpenBLAS has a team of its own, which would fight over the cores with ours; other BLAS libraries
// lack the function.
extern "C" void openblas_set_num_threads(int n_threads) __attribute__((weak));

namespace fovea::index {

namespace {

// Where the name of a place in FAISS's sources ends, "FILE:LINE: ", from `from` on; npos: nowhere.
size_t EndOfPlace(std::string_view text, size_t from) {
  for (size_t end = text.find(": ", from); end != std::string_view::npos;
       end = text.find(": ", end + 1)) {
    size_t digits = end;
    while (digits > from && text[digits - 1] >= '0' && text[digits - 1] <= '9') --digits;
    if (digits < end && digits > from && text[digits - 1] == ':') return end + 2;
  }
  return std::string_view::npos;
}

absl::Status Refused(const FaissAction& action, std::string_view reason) {
  return absl::InvalidArgumentError(
      StrCat(action.action, ": FAISS ", FaissVersion(), " says: ", reason, ": ", action.advice));
}

}  // namespace

std::string FaissReason(std::string_view text) {
  // "Error in FUNCTION at FILE:LINE: REASON"; a reason may quote another such text.
  constexpr std::string_view kWhere = "Error in ";
  std::string reason(text);
  size_t where = 0;
  while ((where = reason.find(kWhere, where)) != std::string::npos) {
    const size_t end = EndOfPlace(reason, where);
    if (end == std::string::npos) break;
    reason.erase(where, end - where);
  }
  // "Error: 'CONDITION' failed: WORDS", or without words.
  constexpr std::string_view kCheck = "Error: '";
  constexpr std::string_view kFailed = "' failed";
  if (reason.starts_with(kCheck)) {
    const size_t failed = reason.find(kFailed);
    if (failed != std::string::npos) {
      const std::string words = reason.substr(failed + kFailed.size());
      reason = words.starts_with(": ") && words.size() > 2
                   ? words.substr(2)
                   : StrCat("want ", reason.substr(kCheck.size(), failed - kCheck.size()));
    }
  }
  for (char& c : reason) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  while (!reason.empty() && (reason.back() == ' ' || reason.back() == '.')) reason.pop_back();
  return reason.empty() ? "no reason" : reason;
}

absl::Status CallFaiss(const FaissAction& action, absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(action.action, ": out of memory"));
  } catch (const std::logic_error&) {
    // The library's own texts are names of functions: "stoi", "vector::_M_default_append".
    return Refused(action, "a number or a size that is out of range");
  } catch (const std::exception& e) {
    // FAISS's GPU part says so as it says everything, with a list of what it holds.
    const std::string_view text = e.what();
    if (text.find("cudaMalloc") != std::string_view::npos ||
        text.find("CUDA memory allocation error") != std::string_view::npos) {
      return absl::ResourceExhaustedError(StrCat(action.action, ": out of memory on the GPU"));
    }
    return Refused(action, FaissReason(text));
  }
}

void UseOneThread() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  });
  omp_set_num_threads(1);
}

void UseThreads(int n_threads) {
  UseOneThread();
  omp_set_num_threads(n_threads);
}

bool FaissHasGpuPart() { return HasFaissGpu(); }

std::string FaissVersion() {
  return StrCat(FAISS_VERSION_MAJOR, ".", FAISS_VERSION_MINOR, ".", FAISS_VERSION_PATCH);
}

}  // namespace fovea::index
