#include "compute/cpu/amx.h"

#include <atomic>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fovea::compute::cpu {
namespace {

std::atomic<bool> is_disabled{false};

#if defined(__x86_64__) && defined(__linux__)

// Of leaf 7, EDX.
constexpr unsigned kBf16 = 1u << 22;
constexpr unsigned kTiles = 1u << 24;
constexpr unsigned kInt8 = 1u << 25;

bool AskFor(unsigned products) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTiles) == 0 || (edx & products) == 0) return false;
  // Linux keeps room for the tiles of a process only when it asks: arch_prctl(2),
  // ARCH_REQ_XCOMP_PERM. Kernels that do not know of them refuse.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#else

constexpr unsigned kBf16 = 0, kInt8 = 0;
bool AskFor(unsigned /*products*/) { return false; }

#endif

}  // namespace

bool HasAmxInt8() {
  static const bool has = AskFor(kInt8);
  return has && !is_disabled.load(std::memory_order_relaxed);
}

bool HasAmxBf16() {
  static const bool has = AskFor(kBf16);
  return has && !is_disabled.load(std::memory_order_relaxed);
}

void DisableAmxForTest(bool disable) { is_disabled.store(disable, std::memory_order_relaxed); }

}  // namespace fovea::compute::cpu
