// What fovea's functions return, as Python classes with fields that are read.
#pragma once

#include <nanobind/nanobind.h>

namespace fovea::python {

void AddTypes(nanobind::module_& module);

}  // namespace fovea::python
