// Random numbers that are the same everywhere: the standard's distributions are each library's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace fovea::texts {

class Random {
 public:
  // Another stream for each step of a run.
  Random(uint64_t seed, uint64_t stream) {
    std::seed_seq sequence{seed & 0xffffffffu, seed >> 32, stream & 0xffffffffu, stream >> 32};
    engine_.seed(sequence);
  }
  // In [0, n), n > 0. The remainder's bias is below 2^-40 for all n here.
  size_t Below(size_t n) { return static_cast<size_t>(engine_() % n); }
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }  // in [0, 1)
  bool Chance(double p) { return Uniform() < p; }
  template <typename T>
  const T& Of(const std::vector<T>& items) {
    return items[Below(items.size())];
  }
  template <typename T>
  void Shuffle(std::vector<T>* items) {
    for (size_t i = items->size(); i > 1; --i) std::swap((*items)[i - 1], (*items)[Below(i)]);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace fovea::texts
