// How FAISS is called: on the calling thread alone, with its exceptions turned into a Status.
#pragma once

#include <string_view>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::index {

// What `body` returns, exceptions as a Status: FAISS reports bad input by exceptions.
absl::Status CallFaiss(std::string_view action, absl::FunctionRef<absl::Status()> body);

// FAISS and its BLAS work on the calling thread alone.
void UseOneThread();

}  // namespace fovea::index
