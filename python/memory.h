// fovea.Memory and fovea.AnswerStream: what Python calls, on the functions that the command line
// and the server call.
#pragma once

#include <nanobind/nanobind.h>

namespace fovea::python {

void AddMemory(nanobind::module_& module);

}  // namespace fovea::python
