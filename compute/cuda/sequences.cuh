// Sequences whose rows lie one after another, as kernels take them: by value, so that nothing has
// to be copied to the GPU first.
#pragma once

#include <cstdint>
#include <span>

namespace fovea::compute::cuda {

struct Sequences {
  static constexpr int kMax = 255;  // 1 KiB of a kernel's arguments
  int n = 0;                        // 0: all rows are one sequence
  int begins[kMax + 1] = {};        // of each sequence, and the end of the last

  // The sequence that a row belongs to.
  __host__ __device__ int Find(int64_t row) const {
    int low = 0, high = n;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (begins[middle] <= row) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Calls launch(sequences) for as many of `begins` ([n_sequences + 1]) at a time as a kernel takes;
// once with none where `begins` is empty.
template <typename Launch>
void ForSequences(std::span<const int64_t> begins, Launch launch) {
  if (begins.empty()) return launch(Sequences());
  const size_t n_all = begins.size() - 1;
  for (size_t first = 0; first < n_all; first += Sequences::kMax) {
    Sequences some;
    some.n = static_cast<int>(n_all - first < Sequences::kMax ? n_all - first : Sequences::kMax);
    for (int i = 0; i <= some.n; ++i) {
      some.begins[i] = static_cast<int>(begins[first + static_cast<size_t>(i)]);
    }
    launch(some);
  }
}

}  // namespace fovea::compute::cuda
