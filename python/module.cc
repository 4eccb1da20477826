// The extension module fovea._fovea, which the package fovea (fovea/__init__.py) shows to its
// users.
#include <nanobind/nanobind.h>

#include "python/errors.h"
#include "python/memory.h"
#include "python/types.h"

NB_MODULE(_fovea, module) {
  module.attr("version") = FOVEA_VERSION;
  fovea::python::AddErrors(module);
  fovea::python::AddTypes(module);
  fovea::python::AddMemory(module);
}
