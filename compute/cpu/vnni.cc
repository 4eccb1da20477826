#include "compute/cpu/vnni.h"

#include <atomic>

namespace fovea::compute::cpu {
namespace {

std::atomic<bool> is_disabled{false};

}  // namespace

#if defined(__x86_64__)

bool HasAvx512Vnni() {
  static const bool has =
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl");
  return has && !is_disabled.load(std::memory_order_relaxed);
}

bool HasAvxVnni() {
  static const bool has = __builtin_cpu_supports("avxvnni");
  return has && !is_disabled.load(std::memory_order_relaxed);
}

#else

bool HasAvx512Vnni() { return false; }
bool HasAvxVnni() { return false; }

#endif

void DisableVnniForTest(bool disable) { is_disabled.store(disable, std::memory_order_relaxed); }

}  // namespace fovea::compute::cpu
