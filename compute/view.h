// What ops take for a tensor: elements of a type at an address in a device's memory, with a shape
// and strides. A view owns nothing; the memory belongs to a Buffer or to anybody else, and lies
// where the device of the op says (compute/device.h).
//
//   ConstView keys(DType::kBF16, data, {n_tokens, n_kv_heads, head_dim});
//   keys = keys.WithStrides({head_dim, n_tokens * head_dim, 1});  // heads lie outermost
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/entries.h"
#include "compute/dtype.h"

namespace fovea::compute {

constexpr DType DTypeOf(EntryType type) {
  return type == EntryType::kFloat32 ? DType::kF32 : DType::kBF16;
}

class ConstView {
 public:
  static constexpr int kMaxRank = 3;

  ConstView() = default;  // none: of rank 0
  // Row-major, without gaps. 1 to kMaxRank dimensions.
  ConstView(DType dtype, const void* data, std::initializer_list<int64_t> shape)
      : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())) {
    FOVEA_CHECK(rank_ >= 1 && rank_ <= kMaxRank);
    int i = 0;
    for (const int64_t dim : shape) shape_[i++] = dim;
    int64_t stride = 1;
    for (i = rank_ - 1; i >= 0; --i) {
      strides_[i] = stride;
      stride *= shape_[i];
    }
  }
  // `data`: const float* or const BFloat16*, or entries of either type.
  ConstView(EntryPointer data, std::initializer_list<int64_t> shape)
      : ConstView(DTypeOf(data.type()), data.address(), shape) {}

  // Elements from one index of a dimension to the next. Of block-quantised types whole blocks, and
  // 1 for the last dimension.
  ConstView WithStrides(std::initializer_list<int64_t> strides) const {
    ConstView view = *this;
    view.SetStrides(strides);
    return view;
  }
  // Indexes first … first + n − 1 of the first dimension.
  ConstView Rows(int64_t first, int64_t n) const {
    ConstView view = *this;
    view.SetRows(first, n);
    return view;
  }

  DType dtype() const { return dtype_; }
  const void* data() const { return data_; }
  int rank() const { return rank_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t stride(int i) const { return strides_[i]; }
  // Elements.
  int64_t size() const {
    int64_t size = rank_ > 0 ? 1 : 0;
    for (int i = 0; i < rank_; ++i) size *= shape_[i];
    return size;
  }
  bool is_none() const { return rank_ == 0; }
  // Whether the elements of the last dimension lie beside one another.
  bool has_dense_rows() const { return strides_[rank_ - 1] == 1 || shape_[rank_ - 1] <= 1; }
  bool is_contiguous() const {
    int64_t stride = 1;
    for (int i = rank_ - 1; i >= 0; --i) {
      if (strides_[i] != stride && shape_[i] > 1) return false;
      stride *= shape_[i];
    }
    return true;
  }
  // T is dtype()'s; std::byte for any.
  template <typename T>
  const T* As() const {
    return static_cast<const T*>(data_);
  }

  std::string ShapeText() const;  // "[5,3,64]"

 protected:
  void SetStrides(std::initializer_list<int64_t> strides) {
    FOVEA_CHECK(static_cast<int>(strides.size()) == rank_);
    int i = 0;
    for (const int64_t stride : strides) strides_[i++] = stride;
  }
  void SetRows(int64_t first, int64_t n) {
    FOVEA_CHECK(first >= 0 && n >= 0 && first + n <= shape_[0]);
    const DTypeTraits& traits = Traits(dtype_);
    data_ = static_cast<const std::byte*>(data_) +
            first * strides_[0] / traits.block_size * traits.block_bytes;
    shape_[0] = n;
  }

 private:
  const void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  int64_t shape_[kMaxRank] = {};
  int64_t strides_[kMaxRank] = {};
};

// The same, to be written to.
class View : public ConstView {
 public:
  View() = default;
  View(DType dtype, void* data, std::initializer_list<int64_t> shape)
      : ConstView(dtype, data, shape) {}
  View(float* data, std::initializer_list<int64_t> shape) : View(DType::kF32, data, shape) {}
  View(BFloat16* data, std::initializer_list<int64_t> shape) : View(DType::kBF16, data, shape) {}

  View WithStrides(std::initializer_list<int64_t> strides) const {
    View view = *this;
    view.SetStrides(strides);
    return view;
  }
  View Rows(int64_t first, int64_t n) const {
    View view = *this;
    view.SetRows(first, n);
    return view;
  }
  void* data() const { return const_cast<void*>(ConstView::data()); }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data());
  }
};

}  // namespace fovea::compute
