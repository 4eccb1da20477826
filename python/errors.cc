#include "python/errors.h"

#include <nanobind/stl/string.h>

#include <string>
#include <utility>
#include <vector>

namespace fovea::python {

namespace nb = nanobind;

namespace {

struct ErrorClass {
  absl::StatusCode code;
  const char* name;
  PyObject* also;  // a class of Python's own that it is, too; may be null
  const char* doc;
};

// One for each code that fovea's functions return. Held by the module, and by this for good: they
// outlive every call.
PyObject* error = nullptr;
std::vector<std::pair<absl::StatusCode, PyObject*>> subclasses;

PyObject* NewClass(nb::module_& module, const char* name, nb::object bases, const char* doc) {
  const std::string module_name = nb::cast<std::string>(module.attr("__name__"));
  PyObject* const made =
      PyErr_NewExceptionWithDoc(StrCat(module_name, ".", name).c_str(), doc, bases.ptr(), nullptr);
  if (made == nullptr) throw nb::python_error();
  module.attr(name) = nb::borrow(made);
  return made;
}

}  // namespace

void AddErrors(nb::module_& module) {
  using Code = absl::StatusCode;
  const ErrorClass classes[] = {
      {Code::kNotFound, "NotFound", PyExc_LookupError,
       "There is no such file, memory, model, adapter, collection or document."},
      {Code::kInvalidArgument, "InvalidArgument", PyExc_ValueError,
       "An argument that makes no sense, or content that is no text."},
      {Code::kFailedPrecondition, "FailedPrecondition", nullptr,
       "The memory is closed, empty, read-only, or was made by another model."},
      {Code::kOutOfRange, "OutOfRange", nullptr,
       "A question that does not fit into the model's window."},
      {Code::kUnavailable, "Unavailable", nullptr,
       "Another process writes to the memory, or a device or download cannot be had now."},
      {Code::kDataLoss, "DataLoss", nullptr,
       "Something that is stored is damaged: fovea.verify(path, repair=True) names it and repairs "
       "what it can."},
      {Code::kResourceExhausted, "ResourceExhausted", nullptr,
       "The disk is full, or main memory is."},
      {Code::kPermissionDenied, "PermissionDenied", PyExc_PermissionError,
       "A file or folder that may not be read or written."},
      {Code::kCancelled, "Cancelled", nullptr,
       "The memory was closed while the call ran. What was reported as stored is."},
      {Code::kAborted, "Aborted", nullptr, "A file changed while it was read."},
      {Code::kUnimplemented, "Unimplemented", nullptr, "What this build of fovea cannot do."},
      {Code::kInternal, "Internal", nullptr, "A fault of fovea's own, or of a library's."},
  };
  error = NewClass(module, "Error", nb::borrow(PyExc_Exception),
                   "What went wrong, in words: what, where, expected, actual, what to do.");
  for (const ErrorClass& one : classes) {
    const nb::object bases =
        one.also == nullptr ? nb::borrow(error)
                            : nb::object(nb::make_tuple(nb::borrow(error), nb::borrow(one.also)));
    subclasses.emplace_back(one.code, NewClass(module, one.name, bases, one.doc));
  }
}

void ThrowStatus(const absl::Status& status) {
  PyObject* type = error;
  for (const auto& [code, subclass] : subclasses) {
    if (code == status.code()) type = subclass;
  }
  const std::string_view message = ToStd(status.message());
  const nb::object text = nb::steal(
      PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
  PyErr_SetObject(type, text.ptr());
  throw nb::python_error();
}

}  // namespace fovea::python
