// Status macros on top of absl::Status, and CHECK for errors of the programmer.
//
// Bad input and a bad environment are absl::Status; a broken invariant ends the process.
//   ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
//   RETURN_IF_ERROR(Parse(file->bytes()));
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/strings.h"

#define FOVEA_CONCAT_IMPL(a, b) a##b
#define FOVEA_CONCAT(a, b) FOVEA_CONCAT_IMPL(a, b)

// Returns from the enclosing function when `expr` is an error.
#define RETURN_IF_ERROR(expr)                                     \
  do {                                                            \
    if (absl::Status fovea_status = (expr); !fovea_status.ok()) { \
      return fovea_status;                                        \
    }                                                             \
  } while (false)

// Evaluates `expr` (an absl::StatusOr), returns its error or moves its value into `lhs`.
#define ASSIGN_OR_RETURN(lhs, ...) \
  ASSIGN_OR_RETURN_IMPL(FOVEA_CONCAT(fovea_statusor_, __LINE__), lhs, (__VA_ARGS__))
#define ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = expr;                            \
  if (!tmp.ok()) {                            \
    return std::move(tmp).status();           \
  }                                           \
  lhs = *std::move(tmp)

// Ends the process: for invariants that no input can break.
#define FOVEA_CHECK(condition)                                                           \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

namespace fovea {

// `status` with "context: " in front of its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), StrCat(context, ": ", status.message()));
}

}  // namespace fovea
