// Writes zip archives, right or wrong: nothing is checked.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea {

inline constexpr uint16_t kZipDeflated = 8;

struct ZipFile {
  std::string name;
  std::string bytes;
  uint16_t method = 0;  // deflated if it is kZipDeflated, else as it is
  uint16_t flags = 0;
  std::optional<uint64_t> claimed_bytes = {};  // what a Zip64 field says its sizes are
};

// Bare, without zlib's header.
inline std::string Deflated(std::string_view bytes) {
  z_stream stream{};
  std::string packed(compressBound(bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  if (deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
      deflate(&stream, Z_FINISH) != Z_STREAM_END) {
    std::abort();
  }
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

inline std::string MakeZip(const std::vector<ZipFile>& files, const std::string& comment = "") {
  const auto number = [](uint64_t value, size_t n_bytes) {
    std::string bytes;
    for (size_t i = 0; i < n_bytes; ++i) bytes += static_cast<char>(i < 8 ? value >> (8 * i) : 0);
    return bytes;
  };
  std::string zip, directory;
  for (const ZipFile& file : files) {
    const std::string packed = file.method == kZipDeflated ? Deflated(file.bytes) : file.bytes;
    const uLong checksum = crc32(0, reinterpret_cast<const Bytef*>(file.bytes.data()),
                                 static_cast<uInt>(file.bytes.size()));
    std::string extra;
    if (file.claimed_bytes) {
      extra = number(1, 2) + number(16, 2) + number(*file.claimed_bytes, 8) +
              number(*file.claimed_bytes, 8);
    }
    const std::string common = number(20, 2) + number(file.flags, 2) + number(file.method, 2) +
                               number(0, 4) + number(checksum, 4) +
                               number(file.claimed_bytes ? 0xffffffff : packed.size(), 4) +
                               number(file.claimed_bytes ? 0xffffffff : file.bytes.size(), 4) +
                               number(file.name.size(), 2);
    directory += number(0x02014b50, 4) + number(20, 2) + common + number(extra.size(), 2) +
                 number(0, 10) + number(zip.size(), 4) + file.name + extra;
    zip += number(0x04034b50, 4) + common + number(0, 2) + file.name + packed;
  }
  return zip + directory + number(0x06054b50, 4) + number(0, 4) + number(files.size(), 2) +
         number(files.size(), 2) + number(directory.size(), 4) + number(zip.size(), 4) +
         number(comment.size(), 2) + comment;
}

}  // namespace fovea
