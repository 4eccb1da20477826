// CRC32C for RocksDB with the processor's instructions, by ISA-L.
//
// Every blob and every record of the log that RocksDB reads or writes passes through
// rocksdb::crc32c::Extend. Distributions build RocksDB for the oldest processor of their
// architecture, and it chooses at compile time: their CRC32C goes byte by byte through tables,
// which takes a quarter of the time to the first token of an answer. The linker option --wrap
// (storage/CMakeLists.txt) sends RocksDB's calls here. The values are the same, so stores made with
// and without it are the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "isa-l/crc.h"

// The name that --wrap gives to a replacement of the mangled symbol.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" uint32_t __wrap__ZN7rocksdb6crc32c6ExtendEjPKcm(uint32_t crc, const char* data,
                                                           size_t n_bytes);
// NOLINTEND(bugprone-reserved-identifier)

extern "C" uint32_t __wrap__ZN7rocksdb6crc32c6ExtendEjPKcm(uint32_t crc, const char* data,
                                                           size_t n_bytes) {
  // ISA-L leaves out CRC32C's inversions of the register, takes an int, and does not write.
  crc = ~crc;
  while (n_bytes > 0) {
    const size_t n = std::min(n_bytes, size_t{std::numeric_limits<int>::max()});
    crc = crc32_iscsi(reinterpret_cast<unsigned char*>(const_cast<char*>(data)),
                      static_cast<int>(n), crc);
    data += n;
    n_bytes -= n;
  }
  return ~crc;
}
