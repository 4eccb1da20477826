#include "base/freed_memory.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tests/base/unmapped_page.h"

namespace fovea {
namespace {

#ifdef __GLIBC__

std::byte* Filled(size_t size_bytes) {
  return static_cast<std::byte*>(std::memset(std::malloc(size_bytes), 1, size_bytes));
}

TEST(KeepLittleFreedMemoryTest, LargePiecesGoBackWhateverWasFreedBefore) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "malloc is the sanitizer's";
#endif
  constexpr size_t kBytes = size_t{2} << 20;
  std::free(Filled(12 * kBytes));  // from now on glibc by itself would keep pieces up to this size
  KeepLittleFreedMemory();
  std::free(Filled(12 * kBytes));
  std::byte* const before = Filled(kBytes);
  std::byte* const piece = Filled(kBytes);
  std::byte* const after = Filled(kBytes);
  const uintptr_t middle = reinterpret_cast<uintptr_t>(piece) + kBytes / 2;
  EXPECT_FALSE(IsUnmapped(middle));
  std::free(piece);
  EXPECT_TRUE(IsUnmapped(middle));
  std::free(before);
  std::free(after);
}

#endif

}  // namespace
}  // namespace fovea
