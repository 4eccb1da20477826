#include "compute/check_argument.h"

#include <algorithm>
#include <string>

namespace fovea::compute {
namespace {

std::string TypesText(DTypeSet types) {
  std::string text;
  for (const DType dtype : kAllDTypes) {
    if ((types & OfType(dtype)) == 0) continue;
    text += StrCat(text.empty() ? "" : " or ", Traits(dtype).name);
  }
  return text;
}

bool HasShape(const ConstView& view, std::initializer_list<int64_t> shape) {
  if (view.rank() != static_cast<int>(shape.size())) return false;
  int i = 0;
  for (const int64_t size : shape) {
    const int64_t actual = view.dim(i++);
    if (actual < 0 || (size != kAnySize && size != actual)) return false;
  }
  return true;
}

std::string ShapeText(std::initializer_list<int64_t> shape) {
  std::string text;
  for (const int64_t size : shape) {
    text += StrCat(text.empty() ? "[" : ",", size == kAnySize ? std::string("any") : StrCat(size));
  }
  return text + "]";
}

}  // namespace

std::string ConstView::ShapeText() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += StrCat(i > 0 ? "," : "", shape_[i]);
  return text + "]";
}

absl::Status CheckArgument(const Device& device, std::string_view op, std::string_view argument,
                           const ConstView& view, DTypeSet types,
                           std::initializer_list<int64_t> shape, Layout layout, Place place) {
  if (!HasShape(view, shape)) {
    return absl::InvalidArgumentError(StrCat(op, ": ", argument, " has the shape ",
                                             view.ShapeText(), ", want ", ShapeText(shape)));
  }
  if ((types & OfType(view.dtype())) == 0) {
    return absl::InvalidArgumentError(StrCat(op, ": ", argument, " has the type ",
                                             Traits(view.dtype()).name, ", want ",
                                             TypesText(types)));
  }
  if (view.size() == 0) return absl::OkStatus();
  if (view.data() == nullptr) {
    return absl::InvalidArgumentError(
        StrCat(op, ": ", argument, " of the shape ", view.ShapeText(), " is null"));
  }
  if (!(layout == Layout::kContiguous ? view.is_contiguous() : view.has_dense_rows())) {
    std::string strides;
    for (int i = 0; i < view.rank(); ++i) strides += StrCat(i > 0 ? "," : "", view.stride(i));
    return absl::InvalidArgumentError(
        StrCat(op, ": ", argument, " of the shape ", view.ShapeText(), " has strides [", strides,
               "], want ", layout == Layout::kContiguous ? "no gaps" : "1 in the last dimension"));
  }
  if (!(place == Place::kOwn ? device.MayOwn(view.data()) : device.MayRead(view.data()))) {
    return absl::InvalidArgumentError(StrCat(op, ": ", argument, " of the shape ", view.ShapeText(),
                                             " does not lie in the device's memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckSequences(std::string_view op, std::span<const int64_t> begins, int64_t n_rows) {
  if (begins.size() >= 2 && begins.front() == 0 && begins.back() == n_rows &&
      std::is_sorted(begins.begin(), begins.end())) {
    return absl::OkStatus();
  }
  std::string text;
  for (size_t i = 0; i < begins.size() && i < 8; ++i) text += StrCat(i > 0 ? "," : "", begins[i]);
  return absl::InvalidArgumentError(
      StrCat(op, ": sequences begin at [", text, begins.size() > 8 ? ",…" : "",
             "], want numbers that rise from 0 to the number of rows, ", n_rows));
}

}  // namespace fovea::compute
