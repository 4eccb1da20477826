// How FAISS is called: on the calling thread alone, with its exceptions turned into a Status that
// says what is wrong and nothing of where in FAISS's sources that was found.
#pragma once

#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::index {

// What is being done, and what to do where FAISS refuses it: "<action>: FAISS <version> says:
// <reason>: <advice>".
struct FaissAction {
  std::string_view action;
  std::string_view advice;
};

// What `body` returns; FAISS reports bad input by exceptions, which become InvalidArgument.
// ResourceExhausted where memory is lacking, the GPU's as well.
absl::Status CallFaiss(const FaissAction& action, absl::FunctionRef<absl::Status()> body);

// The part of a FAISS exception's text that says what is wrong: without the C++ function, the file
// and the line, and without the condition where words explain it.
std::string FaissReason(std::string_view text);

// FAISS and its BLAS work on the calling thread alone.
void UseOneThread();
// FAISS's own loops on so many, until UseOneThread.
void UseThreads(int n_threads);

}  // namespace fovea::index
