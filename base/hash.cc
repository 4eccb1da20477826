#include "base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>
#ifdef FOVEA_XXHASH_DISPATCH
// XXH3 by what the processor has (AVX2, AVX-512) instead of by what its architecture promises:
// twice as fast. The same values.
#include <xxh_x86dispatch.h>
#endif

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "base/status.h"

namespace fovea {

std::string Hash128::ToHex() const { return absl::StrFormat("%016x%016x", high, low); }

Hash128 FastHash128(std::string_view bytes, uint64_t seed) {
  const XXH128_hash_t h = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  return {h.high64, h.low64};
}

uint64_t Checksum64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct FastHasher::Impl {
  XXH3_state_t* state = XXH3_createState();
  ~Impl() { XXH3_freeState(state); }
};

FastHasher::FastHasher() : impl_(std::make_unique<Impl>()) { XXH3_128bits_reset(impl_->state); }
FastHasher::~FastHasher() = default;
FastHasher::FastHasher(FastHasher&&) noexcept = default;
FastHasher& FastHasher::operator=(FastHasher&&) noexcept = default;
void FastHasher::Update(std::string_view bytes) {
  XXH3_128bits_update(impl_->state, bytes.data(), bytes.size());
}
Hash128 FastHasher::Finish() const {
  const XXH128_hash_t h = XXH3_128bits_digest(impl_->state);
  return {h.high64, h.low64};
}

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  FOVEA_CHECK(EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
void Sha256::Update(std::string_view bytes) {
  FOVEA_CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}
std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  FOVEA_CHECK(EVP_DigestFinal_ex(impl_->context, digest, &size) == 1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 hasher;
  hasher.Update(bytes);
  return hasher.FinishHex();
}

}  // namespace fovea
