// fovea's errors as Python exceptions: fovea.Error, and a subclass of it for each status code.
#pragma once

#include <nanobind/nanobind.h>

#include "base/status.h"

namespace fovea::python {

// Adds the classes to the module.
void AddErrors(nanobind::module_& module);

// Requires Python's lock and a status that is not OK.
[[noreturn]] void ThrowStatus(const absl::Status& status);

inline void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) ThrowStatus(status);
}
template <typename T>
T ValueOrThrow(absl::StatusOr<T> value) {
  ThrowIfError(value.status());
  return *std::move(value);
}

}  // namespace fovea::python
