// Hashes, each for one purpose: SHA-256 names documents and checks downloads (collisions must
// not be constructible), XXH3-128 names weights and windows (speed), XXH3-64 checks records.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace fovea {

struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const Hash128&) const = default;
  std::string ToHex() const;  // 32 lower-case digits
};

// XXH3-128 of `bytes`.
Hash128 FastHash128(std::string_view bytes, uint64_t seed = 0);
// XXH3-64 of `bytes`: the checksum of stored records and index files.
uint64_t Checksum64(std::string_view bytes);

// Incremental XXH3-128. Not thread-safe.
class FastHasher {
 public:
  FastHasher();
  ~FastHasher();
  FastHasher(FastHasher&&) noexcept;
  FastHasher& operator=(FastHasher&&) noexcept;
  void Update(std::string_view bytes);
  Hash128 Finish() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void Update(std::string_view bytes);
  // 64 lower-case hex digits. Call once.
  std::string FinishHex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string Sha256Hex(std::string_view bytes);

// Bytes of an object or a span, for the functions above.
template <typename T>
std::string_view AsBytes(std::span<const T> items) {
  return {reinterpret_cast<const char*>(items.data()), items.size_bytes()};
}

}  // namespace fovea
