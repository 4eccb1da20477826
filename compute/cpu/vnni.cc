#include "compute/cpu/vnni.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

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
  // Not all compilers know the name for __builtin_cpu_supports (clang 14 does not). What the system
  // has to keep of registers is the same as for AVX2.
  static const bool has = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    constexpr unsigned kAvxVnni = 1u << 4;  // leaf 7, subleaf 1, EAX
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
           (eax & kAvxVnni) != 0;
  }();
  return has && !is_disabled.load(std::memory_order_relaxed);
}

#else

bool HasAvx512Vnni() { return false; }
bool HasAvxVnni() { return false; }

#endif

bool HasArmDotProduct() {
#if defined(__ARM_FEATURE_DOTPROD)
  return !is_disabled.load(std::memory_order_relaxed);
#else
  return false;
#endif
}

void DisableVnniForTest(bool disable) { is_disabled.store(disable, std::memory_order_relaxed); }

}  // namespace fovea::compute::cpu
