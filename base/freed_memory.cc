#include "base/freed_memory.h"

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace fovea {

void KeepLittleFreedMemory() {
#ifdef __GLIBC__
  // Left alone, glibc raises both with the largest piece that was ever freed (mallopt(3)), up to 32
  // and 64 MiB: an ingest beside answers then leaves more and more in its arenas, of which there
  // are up to eight a processor. Smaller limits would cost the store more, which reads blocks of
  // hundreds of kilobytes into fresh pieces.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
}

}  // namespace fovea
