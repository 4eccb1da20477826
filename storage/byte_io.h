// Writing and reading the payloads of records: little-endian integers, varints, length-prefixed
// bytes. The reader trusts nothing: it never reads past its input, and it says how much is left,
// so that a decoder can check a count before it allocates for it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace fovea::storage {

static_assert(std::endian::native == std::endian::little,
              "stored integers and arrays of numbers are little-endian and copied as they are");

class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(*out) {}

  void U8(uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void U32(uint32_t value) { Raw(&value, sizeof(value)); }
  void U64(uint64_t value) { Raw(&value, sizeof(value)); }
  void F64(double value) { U64(std::bit_cast<uint64_t>(value)); }
  // LEB128: seven bits a byte, lowest first.
  void Varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) U8(static_cast<uint8_t>(value | 0x80));
    U8(static_cast<uint8_t>(value));
  }
  void Bytes(std::string_view bytes) {
    Varint(bytes.size());
    out_.append(bytes);
  }
  void Raw(const void* data, size_t size_bytes) {
    out_.append(static_cast<const char*>(data), size_bytes);
  }

 private:
  std::string& out_;
};

// After the first read that fails, every further one gives zeros; ask ok() at the end, and before
// a value is used as a size.
class ByteReader {
 public:
  explicit ByteReader(std::string_view in) : in_(in) {}

  bool ok() const { return ok_; }
  size_t n_left() const { return in_.size(); }
  // Whether everything was read and nothing was missing.
  bool AtEnd() const { return ok_ && in_.empty(); }

  uint8_t U8() { return Fixed<uint8_t>(); }
  uint32_t U32() { return Fixed<uint32_t>(); }
  uint64_t U64() { return Fixed<uint64_t>(); }
  double F64() { return std::bit_cast<double>(U64()); }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = U8();
      if (!ok_) return 0;
      // The tenth byte has room for one bit only, and a zero last byte is a second spelling of a
      // shorter number: one value has one encoding.
      if ((shift == 63 && byte > 1) || (shift > 0 && byte == 0)) return Fail();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return Fail();
  }
  std::string_view Bytes() { return Raw(Varint()); }
  std::string_view Raw(uint64_t size_bytes) {
    if (!ok_ || size_bytes > in_.size()) {
      Fail();
      return {};
    }
    const std::string_view bytes = in_.substr(0, size_bytes);
    in_.remove_prefix(size_bytes);
    return bytes;
  }

 private:
  template <typename T>
  T Fixed() {
    T value = 0;
    const std::string_view bytes = Raw(sizeof(T));
    if (bytes.size() == sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  uint64_t Fail() {
    ok_ = false;
    return 0;
  }

  std::string_view in_;
  bool ok_ = true;
};

}  // namespace fovea::storage
